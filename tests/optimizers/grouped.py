"""An optimizer that the tests of UseOptimizer choose, and a module with groups of its own."""

from functools import partial
from typing import Any

from torch.optim import AdamW

from tests.optimizers.toy import Toy

DECAYING = partial(AdamW, lr=0.1, weight_decay=0.3)


class Groups(Toy):
    """A slow body without decay, a fast last layer with it; the norm left out."""

    def configure_optimizers(self) -> Any:
        body = [self.net[0], self.net[3]]
        slow = [p for layer in body for p in layer.parameters()]
        groups = [
            {"params": slow, "lr": 1e-3, "weight_decay": 0},
            {"params": self.net[5].parameters(), "lr": 1e-2, "weight_decay": 0.1},
        ]
        return AdamW(groups)
