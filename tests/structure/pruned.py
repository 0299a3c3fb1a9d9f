"""A module with channels to remove, and a run that shows what was there before and after."""

import copy
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from lightning_dlopt.structure import ChannelPruning
from tests.contract.tasks import CLASSES, FEATURES, RATE, Task, TupleModule

WIDTH = 16


class WideModule(TupleModule):
    """Three linear layers, with a batch norm, Adam and a metric that it counts itself."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def make_net(self) -> nn.Module:
        return nn.Sequential(
            nn.Linear(FEATURES, WIDTH),
            nn.BatchNorm1d(WIDTH),
            nn.ReLU(),
            nn.Linear(WIDTH, WIDTH),
            nn.ReLU(),
            nn.Linear(WIDTH, CLASSES),
        )

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.seen += 1
        self.log("train_loss", loss := self.loss(batch))
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=RATE / 10)


WIDE = Task(WideModule)


def prune(**arguments: Any) -> ChannelPruning:
    return ChannelPruning(**{"speed_up": 2.0, "at": 3, "align": 1, **arguments})


def copied_state(optimizer: Any) -> dict[int, dict[str, Any]]:
    return copy.deepcopy(
        {
            index: dict(optimizer.state[p])
            for index, p in enumerate(p for g in optimizer.param_groups for p in g["params"])
        }
    )


class Widths(Callback):
    """Goes behind the pruning and notes each batch's widths; keeps the states around a change."""

    def __init__(self) -> None:
        self.widths: list[tuple[int, ...]] = []
        self.before: dict[str, Tensor] = {}
        self.state_before: dict[int, dict[str, Any]] = {}
        self.after: dict[str, Tensor] = {}
        self.state_after: dict[int, dict[str, Any]] = {}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        if not self.after:
            self.before = copy.deepcopy(pl_module.state_dict())
            self.state_before = copied_state(trainer.optimizers[0])

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        self.widths.append(widths(pl_module))
        if self.before and not self.after and widths(pl_module) != self.widths[-2]:
            self.after = copy.deepcopy(pl_module.state_dict())
            self.state_after = copied_state(trainer.optimizers[0])


def widths(module: Any) -> tuple[int, ...]:
    return tuple(part.out_features for part in module.net if isinstance(part, nn.Linear))


def multiply_adds(module: Any) -> int:
    """Count by hand: the network is a chain of linear layers."""
    return sum(part.weight.numel() for part in module.net if isinstance(part, nn.Linear))


WHOLE = multiply_adds(WideModule())


def rows_kept(before: Tensor, after: Tensor, dim: int = 0) -> list[int]:
    """Find, value by value, which rows of a tensor are still there."""
    before, after = before.movedim(dim, 0), after.movedim(dim, 0)
    columns = after[0].numel()
    assert columns == before[0].numel()
    found = []
    for row in after:
        same = [i for i, old in enumerate(before) if torch.equal(old, row)]
        assert len(same) == 1
        found += same
    return found


def kept_units(seen: Widths) -> tuple[list[int], list[int]]:
    """Return which units of the two hidden layers are left, from the biases' values."""
    first = rows_kept(seen.before["net.0.bias"][:, None], seen.after["net.0.bias"][:, None])
    second = rows_kept(seen.before["net.3.bias"][:, None], seen.after["net.3.bias"][:, None])
    return first, second


def by_hand(name: str, tensor: Tensor, first: list[int], second: list[int]) -> Tensor:
    """Cut a tensor of the network's parameter or buffer of that name."""
    if name.startswith(("net.0.", "net.1.")):
        return tensor[first] if tensor.dim() else tensor
    if name == "net.3.weight":
        return tensor[second][:, first]
    if name == "net.3.bias":
        return tensor[second]
    return tensor[:, second] if name == "net.5.weight" else tensor
