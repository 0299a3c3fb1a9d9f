"""What a penalty keeps while one fit lasts."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from lightning_dlopt.regularization.tensor_groups import Workspace


@dataclass
class Share:
    """An optimizer's part of the selected parameters."""

    #: All that it trains, by which a change is noticed; held, so that no number is given again.
    trained: list[Tensor]
    key: list[int]
    #: The selected ones of each param group.
    groups: list[list[Tensor]]
    workspaces: list[Workspace]

    @property
    def parameters(self) -> list[Tensor]:
        """All of the selected ones."""
        return [parameter for group in self.groups for parameter in group]


@dataclass
class Run:
    """What a penalty keeps while one fit lasts."""

    log_suffix: str
    shares: dict[int, Share] = field(default_factory=dict)
    hooks: list[Any] = field(default_factory=list)
    #: Optimizers with hooks; held, so that no number is given again.
    watched: dict[int, Optimizer] = field(default_factory=dict)
    #: Optimizers whose step is under way, and whether it is penalized.
    prepared: dict[int, bool] = field(default_factory=dict)
    #: Whether it has changed a gradient or a weight.
    has_acted: bool = False
    #: Whether the module's own loss holds the penalty.
    in_loss: bool = False
    #: Whether, so far, any selected parameter is trained.
    finds_some: bool = False
    logged_batch: int = -1

    def watch(self, optimizer: Optimizer, before: Any, after: Any) -> bool:
        """Put hooks around the optimizer's steps, once, and return whether it takes any."""
        if id(optimizer) not in self.watched:
            self.watched[id(optimizer)] = optimizer
            try:
                self.hooks.append(optimizer.register_step_pre_hook(before))
                self.hooks.append(optimizer.register_step_post_hook(after))
            except AttributeError:  # a wrapper that isn't built as torch's optimizers
                return False
        return True

    def unwatch(self) -> None:
        """Take the hooks off."""
        for hook in self.hooks:
            hook.remove()
