"""What the tests of FreezeLayers train, and what they keep of it."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from lightning_dlopt.data import TensorLoader
from tests.quiet import QUIET

X = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
Y = X.sum(1, keepdim=True)


class Module(LightningModule):
    """An encoder with BatchNorm under a head; momentum and weight decay in the optimizer."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.encoder = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh())
            self.head = nn.Linear(5, 1)
        self.flags: list[list[bool]] = []
        self.norms: list[float] = []

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.mse_loss(self.head(self.encoder(x)), y)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.flags.append([parameter.requires_grad for parameter in self.parameters()])
        return self.loss(*batch)

    def configure_optimizers(self) -> Any:
        # as many do: what is frozen when the optimizer is made never trains
        trained = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.SGD(trained, lr=0.1, momentum=0.9, weight_decay=0.1)


def copies(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


class Snapshots(Callback):
    """Keeps the state after every step."""

    def __init__(self) -> None:
        self.states: list[dict[str, Tensor]] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.states.append(copies(pl_module))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self.states.append(copies(pl_module))

    def changed(self, prefix: str) -> list[bool]:
        """Return for each step whether anything under ``prefix`` changed."""
        pairs = zip(self.states, self.states[1:], strict=False)
        return [
            any(not torch.equal(a[n], b[n]) for n in a if n.startswith(prefix)) for a, b in pairs
        ]


def fit(module: Any, *callbacks: Callback, **arguments: Any) -> Snapshots:
    snapshots = Snapshots()
    settings = {**QUIET, "devices": 1, "max_epochs": 2, **arguments}
    trainer = Trainer(callbacks=[*callbacks, snapshots], **settings)
    trainer.fit(module, TensorLoader(X, Y, batch_size=4))
    return snapshots
