"""Batch normalization over groups of a batch's samples."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_dlopt.core.checks import check_integer
from lightning_dlopt.core.parameters import check_patterns
from lightning_dlopt.structure.changing_class import (
    Classes,
    change_class,
    find_layers,
    planned_layers,
)
from lightning_dlopt.structure.plan import find_entry
from lightning_dlopt.structure.replacing import part_names
from lightning_dlopt.structure.surgery import Surgery

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


class _Ghost(_BatchNorm):
    """What the layers of one, two and three axes share; ``group_size`` is set with the class."""

    group_size: int

    def extra_repr(self) -> str:
        inherited: Any = super()
        return f"{inherited.extra_repr()}, group_size={self.group_size}"

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if not self.training:
            return super().forward(input)
        samples = input.shape[0]  # neither len nor divmod: exports and compilers fix the size then
        groups, rest = samples // self.group_size, samples % self.group_size
        if groups < 2:
            return super().forward(input)
        checked: Any = self
        checked._check_input_dim(input)
        if rest:  # it joins the last group, since few samples have a mean that says little
            cut = (groups - 1) * self.group_size
            parts = [(input[:cut], groups - 1), (input[cut:], 1)]
        else:
            parts = [(input, groups)]
        outputs, means, variances = zip(*(self._normalize(*part) for part in parts), strict=True)
        if self.track_running_stats and self.running_mean is not None:
            self._track(torch.cat(means), torch.cat(variances))
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _normalize(self, samples: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the output, and each group's means and variances, ``(groups, channels)``.

        Samples are dealt out to the groups one by one, so that the groups can be seen as further
        channels of a smaller batch, without moving anything in memory.
        """
        channels = groups * self.num_features
        seen = samples.reshape(-1, channels, *samples.shape[2:])
        like = self.running_mean if self.running_mean is not None else samples
        mean, variance = torch.zeros(2, channels, dtype=like.dtype, device=like.device)
        weight, bias = (
            p.repeat(groups) if p is not None else None for p in (self.weight, self.bias)
        )
        # with a momentum of 1 the "running" statistics are those of the groups themselves
        output = functional.batch_norm(seen, mean, variance, weight, bias, True, 1.0, self.eps)
        output = output.reshape(samples.shape)
        layout = _CHANNELS_LAST.get(samples.dim())
        if layout and not samples.is_contiguous() and samples.is_contiguous(memory_format=layout):
            output = output.contiguous(memory_format=layout)
        return output, mean.view(groups, -1), variance.view(groups, -1)

    @torch.no_grad()
    def _track(self, means: Tensor, variances: Tensor) -> None:
        """Do at once what torch would do with one group after the other."""
        assert self.running_mean is not None
        assert self.running_var is not None
        groups = means.shape[0]
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(groups)
        later = torch.arange(groups - 1, -1, -1, device=means.device)[:, None]
        if self.momentum is None:  # every group that was ever seen counts the same
            seen = self.num_batches_tracked
            share = 1 / float(seen) if seen is not None else 0.0
            kept, shares = 1 - groups * share, torch.full_like(later, share, dtype=torch.float)
        else:
            kept = (1 - self.momentum) ** groups
            shares = self.momentum * (1 - self.momentum) ** later
        shares = shares.to(means.dtype)
        self.running_mean.mul_(kept).add_((shares * means).sum(0))
        self.running_var.mul_(kept).add_((shares * variances).sum(0))


class GhostBatchNorm1d(_Ghost, nn.BatchNorm1d):
    """``BatchNorm1d`` over groups of ``group_size`` samples in training."""


class GhostBatchNorm2d(_Ghost, nn.BatchNorm2d):
    """``BatchNorm2d`` over groups of ``group_size`` samples in training."""


class GhostBatchNorm3d(_Ghost, nn.BatchNorm3d):
    """``BatchNorm3d`` over groups of ``group_size`` samples in training."""


_CLASSES: Classes = {
    nn.BatchNorm1d: GhostBatchNorm1d,
    nn.BatchNorm2d: GhostBatchNorm2d,
    nn.BatchNorm3d: GhostBatchNorm3d,
}


def ghost_batch_norm(
    module: nn.Module, size: int = 32, target: str | Sequence[str] = "all"
) -> list[str]:
    """Let batch norms work on groups of ``size`` samples, in place, and return their names.

    The layers keep their parameters, buffers and names. See :class:`GhostBatchNorm`.

    Args:
        module: the module that is changed, or a batch norm by itself.
        size: samples in a group, at least 2.
        target: ``"all"``, or name patterns of batch norms.

    Raises:
        ArgumentError, ArgumentTypeError: if an argument has a bad value, or a pattern matches
            nothing.

    Warns:
        NoEffectWarning: if a batch norm is left as it is, since its class isn't torch's own.

    Example:
        >>> layer = nn.BatchNorm1d(3)
        >>> ghost_batch_norm(layer, 16)
        ['']
        >>> type(layer).__name__, layer.group_size
        ('GhostBatchNorm1d', 16)
    """
    size = check_integer("ghost_batch_norm", "size", size, "[2, inf)")
    target = check_patterns("ghost_batch_norm", "target", target, "all")
    found = find_layers("ghost_batch_norm", module, target, _CLASSES, _BatchNorm, lambda _: True)
    change_class([layer for _, layer in found], _CLASSES, group_size=size)
    return [name for name, _ in found]


class GhostBatchNorm(Surgery):
    """Normalizes each group of ``size`` samples of a batch by itself.

    What changes in training: every selected ``BatchNorm1d``, ``2d`` and ``3d`` takes its means and
    variances over ``size`` samples instead of the whole batch, so that a large batch is as noisy a
    normalization as a small one, which regularizes. Nothing changes in validation, nor for a batch
    of less than ``2 * size`` samples. A batch of ``n`` is dealt out to ``n // size`` groups one
    sample after the other, which costs no more than the whole batch's normalization; with a
    channels-last layout it costs two copies. If ``size`` doesn't divide ``n``, the last group has
    the batch's last ``size + n % size`` samples. The ``state_dict`` keeps its names.

    Running statistics go on as if the groups were batches that came one after the other: of each
    group with ``momentum``, or, where that is None, as the mean of all groups so far;
    ``num_batches_tracked`` counts groups.

    From E. Hoffer, I. Hubara, D. Soudry, Train longer, generalize better: closing the
    generalization gap in large batch training of neural networks (2017, arXiv:1705.08741). Others
    let consecutive samples be a group; in shuffled batches there is no difference.

    ``SyncBatchNorm``, and batch norms of others' classes (such as timm's ``BatchNormAct2d``), stay
    as they are, which is told.

    When:
        Large batches, from hundreds on, with which the network generalizes worse than with small
        ones.

    When not:
        Batches that are small already; networks without batch norm.

    Args:
        size: samples in a group, at least 2; on several devices, of one device's batch.
        target: ``"all"``, or name patterns of batch norms.

    Raises:
        ArgumentError, ArgumentTypeError: if an argument has a bad value.
        TechniqueError: if a pattern matches nothing, or the Trainer synchronizes batch norms.

    Warns:
        NoEffectWarning: if there is no batch norm to change, or no batch of the first epoch was
            large enough for two groups.

    A checkpoint keeps the arguments and the plan: which layers have groups of what size.
    :func:`load_from_checkpoint` rebuilds the model.

    Example:
        >>> GhostBatchNorm(16)
        GhostBatchNorm(size=16)
    """

    makes = (_Ghost,)

    def __init__(self, size: int = 32, target: str | Sequence[str] = "all") -> None:
        self.size = check_integer(self, "size", size, "[2, inf)")
        self.target = check_patterns(self, "target", target, "all")

    def operate(self, module: nn.Module, generator: torch.Generator) -> dict[str, Any]:
        """Change the batch norms, and return which."""
        layers = ghost_batch_norm(module, self.size, self.target)
        if not layers:
            self.warn_no_effect("there is no BatchNorm1d, 2d or 3d of torch among its target")
            return {}
        return {"layers": layers, "size": self.size}

    @classmethod
    def redo(cls, module: nn.Module, plan: dict[str, Any]) -> None:
        """Change those that the plan names."""
        layers = planned_layers(cls.__name__, module, plan["layers"], _CLASSES)
        change_class(layers, _CLASSES, group_size=plan["size"])

    def _counts(self, module: nn.Module) -> list[int]:
        layers = [layer for layer in module.modules() if isinstance(layer, _Ghost)]
        counters = [layer.num_batches_tracked for layer in layers if layer.group_size == self.size]
        return [int(counter) for counter in counters if counter is not None]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a Trainer that has put other batch norms in place."""
        super().on_fit_start(trainer, pl_module)
        entry, parts = find_entry(pl_module, self.state_key), part_names(pl_module)
        layers = [parts.get(name) for name in entry["plan"]["layers"]] if entry else []
        if any(isinstance(layer, nn.SyncBatchNorm) for layer in layers):
            raise self.refuse(
                "the Trainer's sync_batchnorm=True normalizes over the batches of all devices, and "
                "this over groups of one device's batch: leave one of them out"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note where the counters stand."""
        self._batches, self._before = 0, self._counts(pl_module)

    def on_train_batch_end(self, *_: Any) -> None:
        """Count the batches of the first epoch."""
        self._batches += 1

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell, once, if no batch was split."""
        before, self._before = self._before, []
        if not before:
            return
        counts = self._counts(pl_module)
        if len(counts) != len(before):
            return  # layers have come or gone since
        if all(now - then <= self._batches for now, then in zip(counts, before, strict=True)):
            self.warn_no_effect(f"no batch had two groups of {self.size} samples")
