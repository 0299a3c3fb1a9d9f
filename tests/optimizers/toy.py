"""A small module with its data, and the same training as a loop written by hand."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from tests.quiet import QUIET

STEPS = 6


class Toy(LightningModule):
    """Two layers with a norm between them; its own optimizer is one that no test asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(3, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)
        )

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return functional.mse_loss(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.Adagrad(self.parameters(), lr=7.0)


def toy(cls: type[Toy] = Toy) -> Any:
    torch.manual_seed(3)
    return cls()


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(STEPS, 4, 3, generator=generator)
    targets = torch.randn(STEPS, 4, 2, generator=generator)
    return list(zip(inputs, targets, strict=True))


def loader() -> DataLoader[Any]:
    inputs, targets = (torch.cat(parts) for parts in zip(*batches(), strict=True))
    return DataLoader(TensorDataset(inputs, targets), batch_size=4)


def fit(module: Any, *callbacks: Any, ckpt_path: Any = None, **arguments: Any) -> Trainer:
    """Train for one pass over the batches, in their order."""
    settings = {**QUIET, "max_epochs": 1, "devices": 1, **arguments}
    trainer = Trainer(callbacks=list(callbacks), **settings)
    trainer.fit(module, loader(), ckpt_path=ckpt_path)
    return trainer


#: From the weight ``w``, its gradient ``g``, its ``name``, the ``step`` from 1 and a ``state`` of
#: its own to the new weight.
Rule = Callable[..., Tensor]


def by_hand(rule: Rule, epochs: int = 1) -> dict[str, Tensor]:
    """Return the weights after training the toy in a plain loop with ``rule``."""
    net = copy.deepcopy(toy()).net
    states: dict[str, dict[str, Tensor]] = {}
    for step, (inputs, targets) in enumerate(batches() * epochs, start=1):
        loss = functional.mse_loss(net(inputs), targets)
        gradients = torch.autograd.grad(loss, list(net.parameters()))
        with torch.no_grad():
            for (name, weight), gradient in zip(net.named_parameters(), gradients, strict=True):
                state = states.setdefault(name, {})
                weight.copy_(rule(w=weight, g=gradient, name=name, step=step, state=state))
    return {f"net.{name}": weight for name, weight in net.state_dict().items()}


def assert_close(module: Any, expected: dict[str, Tensor], **tolerance: float) -> None:
    state = module.state_dict()
    assert list(state) == list(expected)
    for name in state:
        torch.testing.assert_close(
            state[name], expected[name], **{"rtol": 1e-5, "atol": 1e-6, **tolerance}, msg=name
        )


def is_matrix(name: str) -> bool:
    return name in ("0.weight", "3.weight", "5.weight")


def rates(trainer: Trainer) -> list[float]:
    return [float(group["lr"]) for group in trainer.optimizers[0].param_groups]


def names_of(trainer: Trainer, module: nn.Module) -> list[list[str]]:
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return [[names[id(p)] for p in group["params"]] for group in trainer.optimizers[0].param_groups]
