import warnings
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor
from torch.nn import functional

from lightning_dlopt import RDrop, symmetric_kl
from lightning_dlopt.core import NoEffectWarning, TechniqueError
from tests.regularization.conftest import (
    CLASSES,
    Stranger,
    assert_close_weights,
    assert_equal_weights,
    fit,
    loader,
)


class Seeds(RDrop):
    """Tells what the second passes drew from."""

    def __init__(self, alpha: float) -> None:
        super().__init__(alpha)
        self.seeds: list[int] = []

    def arguments(self) -> dict[str, Any]:
        return {"alpha": self.alpha}

    def generator(self, *args: Any, **options: Any) -> torch.Generator:
        generator = super().generator(*args, **options)
        self.seeds.append(generator.initial_seed())
        return generator


def reference(alpha: float, seeds: list[int], ignore: int) -> torch.nn.Module:
    """Train by hand, with the paper's loss halved."""
    module = Stranger(dropout=0.5)
    net, optimizer = module.net, module.configure_optimizers()
    norm = net[1]
    seeds = list(seeds)
    torch.manual_seed(9)
    for _ in range(2):
        for x, y in loader():
            one = net(x)
            counts = [buffer.clone() for buffer in norm.buffers()]
            with torch.random.fork_rng():
                torch.manual_seed(seeds.pop(0))
                two = net(x)
            p, q = one.log_softmax(1), two.log_softmax(1)
            kl = functional.kl_div(p, q, reduction="none", log_target=True).sum(1)
            kl = kl + functional.kl_div(q, p, reduction="none", log_target=True).sum(1)
            kept = y != ignore
            nll = functional.cross_entropy(one, y, ignore_index=ignore)
            nll = nll + functional.cross_entropy(two, y, ignore_index=ignore)
            loss = (nll + 2 * alpha * kl[kept].mean() / 2) / 2
            optimizer.zero_grad()
            loss.backward()
            for buffer, count in zip(norm.buffers(), counts, strict=True):
                buffer.copy_(count)
            optimizer.step()
    return net


@pytest.mark.parametrize("ignore", [-100, 1])
def test_trains_as_a_loop_by_hand(ignore: int) -> None:
    def loss(logits: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(logits, y, ignore_index=ignore)

    technique, module = Seeds(alpha=1.5), Stranger(loss, dropout=0.5)
    fit(module, [technique])
    assert len(set(technique.seeds)) == 8
    assert_close_weights(module.net, reference(1.5, technique.seeds, ignore))


class EndState(Callback):
    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.state = torch.get_rng_state()
        self.logged = {name: float(v) for name, v in trainer.logged_metrics.items()}
        self.norm = {k: v.clone() for k, v in pl_module.net[1].named_buffers()}


def test_the_first_pass_is_the_modules_ordinary_one() -> None:
    ends = []
    for techniques in ([], [RDrop(0.7)]):
        module, end = Stranger(dropout=0.5), EndState()
        # a rate of zero, so that both runs see the same weights throughout
        module.configure_optimizers = lambda m=module: torch.optim.SGD(m.parameters(), lr=0.0)
        fit(module, [*techniques, end])
        ends.append((end, module.losses))
    (plain, losses), (twice, both) = ends
    assert torch.equal(plain.state, twice.state)
    assert plain.logged == twice.logged
    assert all(torch.equal(v, twice.norm[k]) for k, v in plain.norm.items())
    assert int(plain.norm["num_batches_tracked"]) == 8
    assert both[::2] == losses
    assert both[1::2] != losses


def test_runs_are_reproducible() -> None:
    modules = [Stranger(dropout=0.5) for _ in range(2)]
    for module in modules:
        fit(module, [RDrop(2.0)])
    assert_equal_weights(modules[0].net, modules[1].net)


def test_at_zero_there_is_no_second_pass() -> None:
    module, plain = Stranger(dropout=0.5), Stranger(dropout=0.5)
    with pytest.warns(NoEffectWarning, match="alpha is 0"):
        fit(module, [RDrop(0)])
    fit(plain)
    assert len(module.losses) == 8
    assert_equal_weights(module.net, plain.net)


def test_without_dropout_it_says_so_once_and_changes_nothing() -> None:
    module, plain = Stranger(), Stranger()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        fit(module, [RDrop(3.0)])
    assert sum(issubclass(w.category, NoEffectWarning) for w in told) == 1
    fit(plain)
    assert_close_weights(module.net, plain.net)


def test_dict_outputs_keep_what_else_is_in_them() -> None:
    class Says(Stranger):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            return None if batch_idx == 1 else {"loss": loss, "batch": batch_idx}

    class Listens(Callback):
        def __init__(self) -> None:
            self.heard: list[Any] = []

        def on_train_batch_end(
            self, trainer: Any, pl_module: Any, outputs: Any, *args: Any
        ) -> None:
            self.heard.append(outputs)

    module, listener = Says(dropout=0.5), Listens()
    fit(module, [RDrop(1.0), listener], max_epochs=1)
    assert [out.get("batch") for out in listener.heard] == [0, None, 2, 3]
    assert len(module.losses) == 7  # a batch that is skipped has no second pass
    # the mean of both, and more: the second one has the divergence in it
    assert float(listener.heard[0]["loss"]) == pytest.approx(sum(module.losses[:2]) / 2)


def test_several_heads_keep_their_weights() -> None:
    """The divergence of a head counts as the module counts that head's loss."""

    def two(logits: Tensor, y: Tensor) -> Tensor:
        main = functional.cross_entropy(logits, y)
        return 0.75 * main + 0.25 * functional.cross_entropy(logits, y, reduction="none").mean()

    module, one = Stranger(two, dropout=0.5), Stranger(dropout=0.5)
    fit(module, [RDrop(1.5)])
    fit(one, [RDrop(1.5)])
    assert_close_weights(module.net, one.net)


def test_passes_that_differ_are_refused() -> None:
    calls = []

    def moody(logits: Tensor, y: Tensor) -> Tensor:
        calls.append(1)
        loss = functional.cross_entropy(logits, y)
        return loss if len(calls) % 2 else loss + functional.cross_entropy(logits, y)

    with pytest.raises(TechniqueError, match="two passes of a batch don't compute the same"):
        fit(Stranger(moody), [RDrop(1.0)], num_sanity_val_steps=0)


def test_a_step_that_takes_the_iterator_is_refused() -> None:
    class Takes(Stranger):
        def training_step(self, dataloader_iter: Any) -> Any:
            raise AssertionError

    with pytest.raises(TechniqueError, match="dataloader_iter"):
        fit(Takes(), [RDrop(1.0)])


def test_no_cross_entropy_is_refused_after_one_pass() -> None:
    module = Stranger(lambda logits, _: logits.square().mean())
    with pytest.raises(TechniqueError, match="no cross-entropy"):
        fit(module, [RDrop(1.0)])
    assert len(module.losses) == 1


def test_sixteen_bit_logits() -> None:
    logits = torch.randn(4, CLASSES, generator=torch.Generator().manual_seed(0))
    half = symmetric_kl(logits.bfloat16(), logits.flip(0).bfloat16())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, symmetric_kl(logits, logits.flip(0)), rtol=0.05, atol=0.02)


@pytest.mark.usefixtures("fresh_compiler")
def test_a_compiled_network_is_compiled_once_for_both_passes() -> None:
    graphs = []

    def count(graph: Any, example: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    module, plain = Stranger(dropout=0.5), Stranger(dropout=0.5)
    module.net.compile(backend=count)
    fit(module, [RDrop(1.5)], num_sanity_val_steps=0, limit_val_batches=0)
    fit(plain, [RDrop(1.5)], num_sanity_val_steps=0, limit_val_batches=0)
    assert len(graphs) == 1
    assert_close_weights(module.net, plain.net)


def test_accumulated_batches_have_masks_of_their_own() -> None:
    technique, module = Seeds(alpha=1.5), Stranger(dropout=0.5)
    fit(module, [technique], accumulate_grad_batches=2)
    assert len(set(technique.seeds)) == len(technique.seeds) == 8
