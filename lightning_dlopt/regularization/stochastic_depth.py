"""Stochastic depth: residual branches are left out at random."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lightning_dlopt.core.checks import check_choice, check_number
from lightning_dlopt.core.errors import ArgumentError
from lightning_dlopt.core.layer_technique import LayerTechnique, noise
from lightning_dlopt.core.named_modules import listing, named_parts, select_modules
from lightning_dlopt.core.parameters import check_patterns


def stochastic_depth(
    x: Tensor, p: float, generator: torch.Generator | None = None, mode: str = "row"
) -> Tensor:
    """Zero a residual branch with probability ``p``, and scale what stays by ``1 / (1 - p)``.

    The definition is that of ``torchvision.ops.stochastic_depth``, with a generator of its own.

    Args:
        x: the branch's output, ``(batch, ...)``.
        p: in [0, 1]; 0 returns ``x`` itself and draws nothing.
        generator: on the device of ``x``; torch's global one by default.
        mode: ``"row"`` draws for each sample, ``"batch"`` once for all.

    Raises:
        ArgumentError: if ``p`` or ``mode`` is none of these.

    Example:
        >>> stochastic_depth(torch.ones(5), 0.5, torch.Generator().manual_seed(0))
        tensor([0., 0., 2., 0., 0.])
    """
    p = check_number("stochastic_depth", "p", p, "[0, 1]")
    mode = check_choice("stochastic_depth", "mode", mode, ("row", "batch"))
    if p == 0:
        return x
    kept = noise(x, p, generator, dims=1 if mode == "row" else 0)
    return x * (kept.div_(1 - p) if p < 1 else kept)


def drop_rates(branches: int, drop_rate: float, schedule: str = "linear") -> list[float]:
    """Return the rate of each of a network's residual branches, from input to output.

    Args:
        branches: how many there are.
        drop_rate: the last one's rate.
        schedule: ``"linear"`` gives branch l of L the rate ``drop_rate * l / L`` (l from 1 on),
            ``"uniform"`` the same rate to all.

    Example:
        >>> drop_rates(4, 0.5)
        [0.125, 0.25, 0.375, 0.5]
    """
    if schedule == "uniform":
        return [drop_rate] * branches
    return [drop_rate * (index + 1) / branches for index in range(branches)]


class StochasticDepth(LayerTechnique):
    """Leave out residual branches at random, the deeper the more often.

    In training each sample skips a branch with a probability that rises linearly with depth up to
    ``drop_rate``; where it doesn't, the branch's output is scaled by ``1 / (1 - p)``, so nothing
    changes in validation. It regularizes deep residual networks; small rates (0.1 to 0.2) are
    usual, more for very deep networks.

    Source: G. Huang, Y. Sun, Z. Liu, D. Sedra, K. Weinberger, Deep Networks with Stochastic Depth,
    2016, arXiv:1603.09382. As in torchvision, and unlike there, samples are drawn one by one
    (``mode="row"``) and scaled in training rather than in inference; a branch that is left out is
    computed all the same, so no time is saved.

    Draws come from a generator of its own; under gradient accumulation and on several ranks every
    batch has its own. A branch that is called several times in a batch draws each time anew;
    activation checkpointing recomputes what was drawn. In a ``torch.compile``d network the compiled
    graph breaks at every branch, which may cost much of what compiling gains.

    When:
        Deep residual networks that overfit.

    When not:
        Few blocks, of which each is a large part of the network; short runs; to save time, for
        every branch is computed.

    Args:
        drop_rate: the probability of leaving out the last branch, in [0, 1); 0 does nothing.
        target: name patterns (``fnmatch``) of the modules whose output is a residual branch, as it
            is just before the addition; their output must be a tensor with the batch first. With
            ``"auto"``: the last norm of torchvision's ``BasicBlock`` and ``Bottleneck``
            (ResNet, ResNeXt, Wide ResNet), and the modules that are there to do this already,
            torchvision's ``StochasticDepth`` and timm's ``DropPath``. Those are replaced during
            training, so their own rates don't count; the same goes for one that a pattern matches.
        mode: ``"row"`` draws for each sample, ``"batch"`` once for a batch.
        schedule: ``"linear"``: branch l of L, in the order of their registration, has the rate
            ``drop_rate * l / L``; ``"uniform"``: all have ``drop_rate``.

    Raises:
        ArgumentError: if an argument is out of range, or a pattern matches no module.
        ArgumentTypeError: if an argument has another type.
        ConflictError: if another ``StochasticDepth`` works on the same module.
        TechniqueError: before the first step: if ``"auto"`` finds no branch, or a branch's output
            is no tensor.

    Warns:
        NoEffectWarning: at the end of the first epoch, if no branch was called in it.

    The checkpoint keeps the arguments only.

    Example:
        >>> StochasticDepth(0.1, target=["blocks.*.branch"])
        StochasticDepth(drop_rate=0.1, target=['blocks.*.branch'])
    """

    def __init__(
        self,
        drop_rate: float,
        target: str | Sequence[str] = "auto",
        mode: str = "row",
        schedule: str = "linear",
    ) -> None:
        self.drop_rate = check_number(self, "drop_rate", drop_rate, "[0, 1)")
        self.target = check_patterns(self, "target", target, "auto")
        self.mode = check_choice(self, "mode", mode, ("row", "batch"))
        self.schedule = check_choice(self, "schedule", schedule, ("linear", "uniform"))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the branches, which are all there now, and change what comes out of them."""
        branches = self._branches(pl_module)
        if self.drop_rate == 0:
            self.warn_no_effect("drop_rate is 0")
            return
        rates = drop_rates(len(branches), self.drop_rate, self.schedule)

        def change(index: int, output: Any) -> Tensor:
            if not isinstance(output, Tensor) or output.dim() == 0:
                raise self.refuse(
                    f"{branches[index][0]} returns {type(output).__name__}, not a tensor with the "
                    "batch first, so it is no residual branch: name another module in target"
                )
            generator = self.draw(trainer, index, output.device)
            return stochastic_depth(output, rates[index], generator, self.mode)

        # a module that is there to drop its input is given another way of doing it
        self.take(trainer, branches, change, stands_in=drops_already)

    def _branches(self, pl_module: LightningModule) -> list[tuple[str, nn.Module]]:
        if not isinstance(self.target, str):
            try:
                return select_modules(pl_module, self.target)
            except ArgumentError as error:
                raise ArgumentError(f"{self!r}: {error}") from error
        found = find_branches(pl_module)
        if not found:
            names = listing([name for name, _ in named_parts(pl_module)]) or "no parts"
            raise self.refuse(
                "target='auto' finds no residual branch that it knows (BasicBlock, Bottleneck and "
                "StochasticDepth of torchvision, DropPath of timm): name the modules whose output "
                f"is added to a shortcut; {type(pl_module).__name__} has {names}"
            )
        return found


def drops_already(module: nn.Module) -> bool:
    """Return whether a module is torchvision's ``StochasticDepth`` or timm's ``DropPath``."""
    kind = type(module)
    # by name, so that timm isn't needed
    return (kind.__module__.split(".")[0], kind.__name__) in {
        ("torchvision", "StochasticDepth"),
        ("timm", "DropPath"),
    }


def find_branches(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the residual branches that are surely some, in the order of registration.

    Example:
        >>> from torchvision.models import resnet18
        >>> [name for name, _ in find_branches(resnet18())][:3]
        ['layer1.0.bn2', 'layer1.1.bn2', 'layer2.0.bn2']
    """
    from torchvision.models.resnet import (  # type: ignore[import-untyped]
        BasicBlock,
        Bottleneck,
    )

    parts = named_parts(module)
    last_norms = set()
    for _, part in parts:
        # a subclass with a forward of its own may add up other things
        if type(part).forward is BasicBlock.forward:
            last_norms.add(id(part.bn2))
        elif type(part).forward is Bottleneck.forward:
            last_norms.add(id(part.bn3))
    return [(name, part) for name, part in parts if id(part) in last_norms or drops_already(part)]
