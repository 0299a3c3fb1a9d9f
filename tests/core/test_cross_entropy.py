import threading
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from lightning_dlopt.core import TechniqueError
from lightning_dlopt.core.cross_entropy import (
    CatchCrossEntropy,
    kl_divergence,
    log_probabilities,
    reduce_like_cross_entropy,
)

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(5, 3, generator=GENERATOR, requires_grad=True)
TARGET = torch.tensor([0, 2, 1, -100, 2])
HARD = torch.tensor([0, 2, 1, 1, 2])
WEIGHT = torch.tensor([1.0, 2.0, 3.0])


def smoothed(logits: Tensor, target: Tensor, **options: Any) -> Tensor:
    return functional.cross_entropy(logits, target, **{**options, "label_smoothing": 0.3})


CALLS: dict[str, Any] = {
    "function": lambda: functional.cross_entropy(LOGITS, HARD),
    "names": lambda: functional.cross_entropy(target=HARD, input=LOGITS),
    "module": lambda: nn.CrossEntropyLoss()(LOGITS, HARD),
    "weight": lambda: functional.cross_entropy(LOGITS, HARD, WEIGHT),
    "ignore": lambda: functional.cross_entropy(LOGITS, TARGET),
    "ignored class": lambda: functional.cross_entropy(LOGITS, HARD, ignore_index=2),
    "none": lambda: functional.cross_entropy(LOGITS, HARD, reduction="none"),
    "old none": lambda: functional.cross_entropy(LOGITS, HARD, reduce=False),
    "old sum": lambda: functional.cross_entropy(LOGITS, HARD, size_average=False),
    "soft": lambda: functional.cross_entropy(LOGITS, functional.one_hot(HARD).float()),
    "one": lambda: functional.cross_entropy(LOGITS[0], HARD[0]),
    "pixels": lambda: functional.cross_entropy(LOGITS.T.expand(2, 3, 5), HARD.expand(2, 5)),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_what_is_handed_on_is_the_same_loss(call: Any) -> None:
    before = call()
    with CatchCrossEntropy(functional.cross_entropy) as catcher:
        caught = call()
    assert torch.equal(caught, before)
    assert catcher.caught == 1
    with CatchCrossEntropy(smoothed):
        assert not torch.equal(call(), before)
    assert torch.equal(call(), before)


@pytest.mark.parametrize("options", [{}, {"weight": WEIGHT}, {"reduction": "sum"}])
def test_nll_of_log_softmax_is_a_cross_entropy(options: Any) -> None:
    with CatchCrossEntropy(smoothed) as catcher:
        by_function = functional.nll_loss(LOGITS.log_softmax(1), TARGET, **options)
        by_module = nn.NLLLoss(**options)(LOGITS.log_softmax(1), TARGET)
    expected = functional.cross_entropy(LOGITS, TARGET, label_smoothing=0.3, **options)
    torch.testing.assert_close(by_function, expected)
    torch.testing.assert_close(by_module, expected)
    assert catcher.caught == 2


def test_nll_of_anything_else_is_refused() -> None:
    with (
        CatchCrossEntropy(smoothed),
        pytest.raises(TechniqueError, match="aren't log-probabilities"),
    ):
        functional.nll_loss(LOGITS, TARGET)


def test_what_trains_nothing_is_left_alone() -> None:
    with CatchCrossEntropy(smoothed) as catcher:
        with torch.no_grad():
            unchanged = functional.cross_entropy(LOGITS, HARD)
        functional.cross_entropy(LOGITS.detach(), HARD)
        functional.binary_cross_entropy_with_logits(LOGITS, torch.rand(5, 3))
        functional.mse_loss(LOGITS, torch.zeros(5, 3))
    assert torch.equal(unchanged, functional.cross_entropy(LOGITS, HARD))
    assert catcher.caught == 0
    assert catcher.passed == {"binary_cross_entropy_with_logits", "mse_loss"}
    catcher.restart()
    assert not catcher.passed


def test_the_innermost_asks_the_one_around_it() -> None:
    order = []

    def named(name: str) -> Any:
        def replace(logits: Tensor, target: Tensor, **options: Any) -> Tensor:
            order.append(name)
            return 2 * functional.cross_entropy(logits, target, **options)

        return replace

    with CatchCrossEntropy(named("outer")), CatchCrossEntropy(named("inner")):
        loss = functional.cross_entropy(LOGITS, HARD)
    assert order == ["inner", "outer"]
    assert torch.equal(loss, 4 * functional.cross_entropy(LOGITS, HARD))


def test_an_exception_leaves_nothing_behind() -> None:
    def fail(*args: Any, **options: Any) -> Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), CatchCrossEntropy(fail):
        functional.cross_entropy(LOGITS, HARD)
    assert functional.cross_entropy(LOGITS, HARD).isfinite()


def test_other_threads_are_left_alone() -> None:
    found = []
    with CatchCrossEntropy(smoothed) as catcher:
        thread = threading.Thread(
            target=lambda: found.append(functional.cross_entropy(LOGITS, HARD))
        )
        thread.start()
        thread.join()
    assert torch.equal(found[0], functional.cross_entropy(LOGITS, HARD))
    assert catcher.caught == 0


def test_a_compiled_network_is_compiled_once() -> None:
    frames = 0

    def count(graph: Any, example: Any) -> Any:
        nonlocal frames
        frames += 1
        return graph.forward

    network = nn.Linear(4, 3)
    network.compile(backend=count)
    inputs = torch.randn(5, 4, generator=GENERATOR)
    for _ in range(3):
        with CatchCrossEntropy(smoothed) as catcher:
            loss = functional.cross_entropy(network(inputs), HARD)
        assert catcher.caught == 1
        assert torch.equal(loss, smoothed(network(inputs), HARD))
    assert frames <= 2  # once with the catcher around it, once without


WEIGHTS = torch.randn(4, 3, generator=GENERATOR, requires_grad=True)
INPUTS = torch.randn(5, 4, generator=GENERATOR, requires_grad=True)


def product(inputs: Tensor) -> Tensor:
    return inputs @ WEIGHTS


def loss_of_product(inputs: Tensor) -> Tensor:
    return functional.cross_entropy(product(inputs), HARD)


@pytest.mark.parametrize("around", [nullcontext, torch.autograd.graph.save_on_cpu])
def test_a_loss_within_an_activation_checkpoint_is_refused(around: Any) -> None:
    with (
        around(),
        CatchCrossEntropy(smoothed),
        pytest.raises(TechniqueError, match="compute the loss outside"),
    ):
        checkpoint(loss_of_product, INPUTS, use_reentrant=False)
    # the gradient of what trains nothing isn't asked for
    with CatchCrossEntropy(smoothed) as catcher, torch.no_grad():
        checkpoint(loss_of_product, INPUTS, use_reentrant=False)
    assert catcher.caught == 0


@pytest.mark.parametrize("around", [nullcontext, torch.autograd.graph.save_on_cpu])
@pytest.mark.parametrize("reentrant", [False, True])
def test_a_loss_of_a_checkpointed_network_is_caught(around: Any, reentrant: bool) -> None:
    with around(), CatchCrossEntropy(smoothed) as catcher:
        logits = checkpoint(product, INPUTS, use_reentrant=reentrant)
        loss = functional.cross_entropy(logits, HARD)
    assert catcher.caught == 1
    loss.backward()
    found, WEIGHTS.grad, INPUTS.grad = WEIGHTS.grad, None, None
    (expected,) = torch.autograd.grad(smoothed(product(INPUTS), HARD), [WEIGHTS])
    torch.testing.assert_close(found, expected)


def loss_of(logits: Tensor, target: Tensor) -> Tensor:
    return functional.cross_entropy(logits, target)


def by_hand(logits: Tensor, target: Tensor) -> Tensor:
    return -logits.log_softmax(1).gather(1, target[:, None]).mean()


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.jit.script(loss_of),
        lambda: torch.compile(loss_of, backend="aot_eager"),
        lambda: by_hand,
        lambda: partial(checkpoint, loss_of, use_reentrant=True),
    ],
)
def test_what_cannot_be_seen(make: Any) -> None:
    loss = make()
    with CatchCrossEntropy(smoothed) as catcher:
        value = loss(LOGITS, HARD)
    assert catcher.caught == 0
    torch.testing.assert_close(value, functional.cross_entropy(LOGITS, HARD))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(5, 3), (3,), (2, 3, 4), (2, 3, 4, 5)])
@pytest.mark.parametrize("soft", [False, True])
def test_reduced_as_cross_entropy_reduces(
    reduction: str, shape: tuple[int, ...], soft: bool
) -> None:
    logits = torch.randn(shape, generator=GENERATOR)
    dim = 0 if len(shape) == 1 else 1
    target = torch.randint(3, shape[:dim] + shape[dim + 1 :], generator=GENERATOR)
    options = {"reduction": reduction, "ignore_index": 1}
    if soft:
        probabilities = torch.rand(shape, generator=GENERATOR).softmax(dim)
        values = -(probabilities * log_probabilities(logits)).sum(dim)
        expected = functional.cross_entropy(logits, probabilities, reduction=reduction)
        got = reduce_like_cross_entropy(values, probabilities, options)
    else:
        picked = log_probabilities(logits).gather(dim, target.unsqueeze(dim)).squeeze(dim)
        expected = functional.cross_entropy(logits, target, reduction=reduction, ignore_index=1)
        got = reduce_like_cross_entropy(-picked, target, options)
    torch.testing.assert_close(got, expected, equal_nan=True)


def test_an_ignored_value_may_be_anything() -> None:
    values = torch.tensor([1.0, float("nan")])
    assert float(reduce_like_cross_entropy(values, torch.tensor([1, -100]))) == 1.0


def test_kl_divergence_is_torchs() -> None:
    p, q = (torch.randn(5, 3, 2, generator=GENERATOR).log_softmax(1) for _ in range(2))
    expected = functional.kl_div(q, p, log_target=True, reduction="none").sum(1)
    torch.testing.assert_close(kl_divergence(p, q), expected)
