"""Any task with convolutions that have no batch norm, and a pattern that blurring wipes out."""

from dataclasses import replace
from functools import cache

import torch
from torch import Tensor, nn

from tests.contract.input_kinds import CHANNELS, images
from tests.contract.tasks import FEATURES, RATE, Task, TupleModule


class Checkered(nn.Module):
    """Puts a checkerboard of 1 and -1 behind the channels."""

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.arange(x.shape[2], device=x.device)[:, None]
        columns = torch.arange(x.shape[3], device=x.device)
        board = 1 - 2 * ((rows + columns) % 2)
        return torch.cat([x, board.to(x).expand(len(x), 1, -1, -1)], dim=1)


def with_checkers(task: Task) -> Task:
    """Return the same task with images for its inputs, and convolutions before its network."""
    return replace(task, module=checkering(task.module), inputs=images)


@cache
def checkering(module: type[TupleModule]) -> type[TupleModule]:
    class Checkering(module):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(
                nn.Conv2d(CHANNELS, 4, 3, padding=1, bias=False),
                nn.GroupNorm(2, 4),
                nn.ReLU(),
                nn.MaxPool2d(2, ceil_mode=True),
                Checkered(),
                # 4 x 3 pixels come in; only the middle weights are never at the border
                nn.Conv2d(5, FEATURES, 3, stride=2),
                nn.Flatten(),
                nn.LayerNorm(FEATURES),
                *self.net,
            )
            if hasattr(self, "kept"):
                self.kept = torch.optim.SGD(self.parameters(), lr=RATE)

    # pickle finds a class by its name
    Checkering.__name__ = Checkering.__qualname__ = f"{module.__name__}_with_checkers"
    globals()[Checkering.__name__] = Checkering
    return Checkering
