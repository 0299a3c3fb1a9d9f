"""Scheduled dropout in training: its rates against a formula, and the layers it works on."""

from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader

from lightning_dlopt.core import ArgumentError, ConflictError, NoEffectWarning, TechniqueError
from lightning_dlopt.regularization import ScheduledDropout
from tests.quiet import QUIET

BATCHES = 5


class Module(LightningModule):
    """Puts ones through its layers, and writes down their rates and what comes out."""

    def __init__(self, *layers: nn.Module, shape: tuple[int, ...] = (8, 6, 4)) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.x = nn.Parameter(torch.ones(shape))
        self.rates: list[list[float]] = []
        self.outputs: list[Tensor] = []
        self.validated: list[Tensor] = []

    def run(self) -> Tensor:
        return self.layers(self.x * 1)  # type: ignore[no-any-return]

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        rates = [getattr(layer, "p", getattr(layer, "dropout", None)) for layer in self.layers]
        self.rates.append(rates)
        self.outputs.append(self.run())
        return self.outputs[-1].sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.validated.append(self.run())

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def fit(module: Any, *techniques: Any, max_epochs: int = 2, **arguments: Any) -> Any:
    trainer = Trainer(
        **QUIET, callbacks=list(techniques), max_epochs=max_epochs, devices=1, **arguments
    )
    loader: Any = DataLoader(range(BATCHES))  # type: ignore[arg-type]
    trainer.fit(module, loader, loader)
    return module


@pytest.mark.parametrize(
    ("span", "accumulate", "expected"),
    [
        (4, 1, [min(k, 4) / 4 for k in range(10)]),
        ("1ep", 1, [min(k, 5) / 5 for k in range(10)]),
        ("50%", 1, [min(k, 5) / 5 for k in range(10)]),
        # five batches are three steps, the last one shorter
        ("1ep", 2, [min(k, 3) / 3 for k in (0, 0, 1, 1, 2, 3, 3, 4, 4, 5)]),
    ],
)
def test_the_rate_follows_the_step(span: Any, accumulate: int, expected: list[float]) -> None:
    module = Module(nn.Dropout(0.3), nn.Dropout(0.0))
    fit(module, ScheduledDropout(0.1, 0.5, span), accumulate_grad_batches=accumulate)
    for rates, share in zip(module.rates, expected, strict=True):
        assert rates == pytest.approx([0.1 + 0.4 * share] * 2)
    assert [layer.p for layer in module.layers] == [0.3, 0.0]


def test_epochs_of_different_length() -> None:
    module = Module(nn.Dropout(0.3))
    accumulation = GradientAccumulationScheduler({0: 1, 1: 5})
    fit(module, ScheduledDropout(0.0, 0.6, "2ep"), accumulation)
    expected = [0.6 * k / 6 for k in (0, 1, 2, 3, 4, *[5] * 5)]
    assert [rates[0] for rates in module.rates] == pytest.approx(expected)


def test_under_manual_optimization_a_batch_is_a_step() -> None:
    class Manual(Module):
        automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            for _ in range(2):
                self.optimizers().step()
            super().training_step(batch, batch_idx)

    module = fit(Manual(nn.Dropout(0.3)), ScheduledDropout(0.0, 0.5, "100%"))
    expected = [0.05 * k for k in range(10)]
    assert [rates[0] for rates in module.rates] == pytest.approx(expected)


def test_what_is_dropped_has_the_rate() -> None:
    module = Module(nn.Dropout(0.0), shape=(100, 100))
    fit(module, ScheduledDropout(0.0, 0.8, 8))
    assert len({tuple(out.flatten().tolist()) for out in module.outputs}) == 10
    for k, out in enumerate(module.outputs):
        rate = min(k, 8) / 10
        # 10 000 draws: a deviation of 0.005 at most
        assert float((out == 0).float().mean()) == pytest.approx(rate, abs=0.02)
        assert float(out.detach().max()) == pytest.approx(1 / (1 - rate))


def test_validation_is_untouched() -> None:
    module = fit(Module(nn.Dropout(0.5)), ScheduledDropout(0.5, 0.9, 3))
    assert len(module.validated) > 2 * BATCHES
    assert all(torch.equal(out, module.x) for out in module.validated)


def test_attention_and_recurrent_layers_get_the_rate_where_they_have_one() -> None:
    class Several(Module):
        def run(self) -> Tensor:
            return self.layers[0](self.x * 1)  # type: ignore[no-any-return]

    layers = [
        nn.Dropout(0.3),
        nn.MultiheadAttention(4, 1, dropout=0.2),
        nn.LSTM(4, 4, num_layers=2, dropout=0.1),
        nn.MultiheadAttention(4, 1),
        nn.GRU(4, 4),
    ]
    module = fit(Several(*layers), ScheduledDropout(0.4, 0.4, 1))
    assert module.rates == [[0.4, 0.4, 0.4, 0.0, 0.0]] * 10
    rates = [getattr(layer, "p", getattr(layer, "dropout", None)) for layer in layers]
    assert rates == [0.3, 0.2, 0.1, 0.0, 0.0]


def test_attention_alone_drops_by_the_rate() -> None:
    class Attends(Module):
        def run(self) -> Tensor:
            out, _ = self.layers[0](self.x, self.x, self.x, need_weights=False)
            return out  # type: ignore[no-any-return]

    attention = nn.MultiheadAttention(4, 1, dropout=0.1)
    module = fit(Attends(attention), ScheduledDropout(0.0, 0.5, 1))
    assert torch.equal(module.outputs[0], module.validated[0])
    assert not torch.equal(module.outputs[1], module.outputs[2])


def test_a_subclass_with_a_forward_of_its_own_keeps_it() -> None:
    class Twice(nn.Dropout):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(super().forward(x))

    module = fit(Module(Twice(0.1), shape=(100, 100)), ScheduledDropout(0.5, 0.5, 1))
    for out in module.outputs:
        assert float((out == 0).float().mean()) == pytest.approx(0.75, abs=0.03)


def test_target() -> None:
    layers = [nn.Dropout(0.3), nn.Dropout(0.2), nn.Identity()]
    module = fit(Module(*layers), ScheduledDropout(0.5, 0.5, 1, target=["layers.[12]"]))
    assert [rates[:2] for rates in module.rates] == [[0.3, 0.5]] * 10


@pytest.mark.parametrize(
    ("target", "error", "said"),
    [
        (
            ["layers.1"],
            TechniqueError,
            r"'layers\.1' matches no dropout layer; there are layers\.",
        ),
        (["layer.*"], ArgumentError, r"ScheduledDropout\(.*no module's name matches 'layer\.\*'"),
    ],
)
def test_a_target_that_matches_nothing(target: list[str], error: Any, said: str) -> None:
    module = Module(nn.Dropout(0.3), nn.Identity())
    with pytest.raises(error, match=said):
        fit(module, ScheduledDropout(0.5, 0.5, 1, target))
    assert module.outputs == []


def test_a_module_without_dropout_is_refused() -> None:
    with pytest.raises(TechniqueError, match="Module has no dropout layer"):
        fit(Module(nn.Identity()), ScheduledDropout(0.1, 0.5, 1))


def test_layers_that_are_never_called_are_told_of() -> None:
    class Functional(Module):
        def run(self) -> Tensor:
            return nn.functional.dropout(self.x, 0.5)

    with pytest.warns(NoEffectWarning, match=r"called none of the layers .*layers\.0"):
        fit(Functional(nn.Dropout(0.5)), ScheduledDropout(0.1, 0.5, 1))


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_what_is_so_anyway_is_told_and_not_touched(rate: float) -> None:
    torch.manual_seed(0)
    plain = fit(Module(nn.Dropout(rate)))
    torch.manual_seed(0)
    with pytest.warns(NoEffectWarning, match="every dropout layer has a rate of 0"):
        module = fit(Module(nn.Dropout(rate)), ScheduledDropout(rate, rate, 1))
    assert all(torch.equal(*pair) for pair in zip(module.outputs, plain.outputs, strict=True))


def test_a_start_at_zero_with_an_end_at_zero_switches_dropout_off() -> None:
    module = fit(Module(nn.Dropout(0.5)), ScheduledDropout(0.0, 0.0, 1))
    assert all(torch.equal(out, module.x) for out in module.outputs)
    assert module.layers[0].p == 0.5


def test_a_span_longer_than_the_run_is_an_error() -> None:
    module = Module(nn.Dropout(0.5))
    with pytest.raises(ArgumentError, match=r"span='3ep' is 15 steps, but the run has only 10"):
        fit(module, ScheduledDropout(0.1, 0.2, "3ep"))
    assert module.outputs == []
    assert module.layers[0].p == 0.5
    fit(module, ScheduledDropout(0.1, 0.2, "3ep"), fast_dev_run=True)


def test_one_layer_has_one_schedule() -> None:
    first = ScheduledDropout(0.1, 0.5, 1, ["layers.0"])
    second = ScheduledDropout(0.2, 0.5, 1, ["layers.1"])
    module = fit(Module(nn.Dropout(0.3), nn.Dropout(0.3)), first, second)
    assert module.rates[0] == [0.1, 0.2]
    with pytest.raises(ConflictError, match=r"both work on layers\.0"):
        fit(module, first, ScheduledDropout(0.2, 0.5, 1))
    assert [layer.p for layer in module.layers] == [0.3, 0.3]


def test_rates_come_back_after_an_exception() -> None:
    class Fails(Module):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            raise ZeroDivisionError

    module = Fails(nn.Dropout(0.3))
    with pytest.raises(ZeroDivisionError):
        fit(module, ScheduledDropout(0.1, 0.2, 1))
    assert module.layers[0].p == 0.3
    assert vars(module.layers[0]).keys() == vars(nn.Dropout()).keys()


def test_recomputed_activations_have_the_same_masks() -> None:
    class Recomputes(Module):
        def run(self) -> Tensor:
            return checkpoint(self.layers, self.x * 1, use_reentrant=False)  # type: ignore[no-any-return]

    class Plain(Module):
        pass

    gradients: list[Tensor] = []
    for kind in (Plain, Recomputes):
        kind.on_after_backward = lambda module: gradients.append(module.x.grad.clone())
        module = kind(nn.Tanh(), nn.Dropout(0.1), nn.Tanh(), nn.Dropout(0.1), nn.Tanh())
        fit(module, ScheduledDropout(0.5, 0.5, 1))
    assert len(gradients) == 20
    for plain, recomputed in zip(gradients[:10], gradients[10:], strict=True):
        assert torch.equal(plain, recomputed)
        assert int((plain == 0).sum()) > 50
