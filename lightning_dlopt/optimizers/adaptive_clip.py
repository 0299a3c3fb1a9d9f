"""Each unit's gradient is clipped by the size of the unit's weights."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lightning_dlopt.core.checks import check_flag, check_number
from lightning_dlopt.core.parameters import Chosen, Selection, check_selection, select_parameters
from lightning_dlopt.optimizers.clipping import GradientClip

#: Tensors below this size are put together, so that one call serves many.
_SMALL = 1 << 14


@torch.no_grad()
def adaptive_clip_(
    parameters: Iterable[Tensor], clip_factor: float = 0.01, eps: float = 1e-3
) -> list[Tensor]:
    """Clip the gradient of each output unit to ``clip_factor`` times the norm of its weights.

    The units of a weight are its first dimension: the rows of a linear layer, the filters of a
    convolution. A tensor of one dimension or none is one unit.

    Args:
        parameters: tensors; those without a gradient are left out.
        clip_factor: the largest ratio of a unit's gradient norm to its weight norm, above 0.
        eps: the least weight norm that is reckoned with, above 0, so that units whose weights are
            all zero still train.

    Returns:
        The factors that units were multiplied by, at most 1 each, in tensors of any shape.

    Example:
        >>> weight = nn.Parameter(torch.tensor([[3.0, 4.0], [0.3, 0.4]]))
        >>> weight.grad = torch.tensor([[0.6, 0.8], [0.6, 0.8]])
        >>> factors = adaptive_clip_([weight], clip_factor=1.0)
        >>> weight.grad  # of norm 1, where the weights have 5 and 0.5
        tensor([[0.6000, 0.8000],
                [0.3000, 0.4000]])
    """
    check_number("adaptive_clip_", "clip_factor", clip_factor, "(0, inf]")
    check_number("adaptive_clip_", "eps", eps, "(0, inf)")
    factors = []
    for weights, gradients in _batches([p for p in parameters if p.grad is not None]):
        limit = _unit_norms(weights).clamp(min=eps) * clip_factor
        # a gradient of 0 gives inf, which becomes 1; one that isn't finite is not hidden
        factor = (limit / _unit_norms(gradients)).clamp(max=1.0)
        factors.append(factor)
        # elsewhere looking at the factors would wait for the device
        looked_at = factor.device.type == "cpu" and not isinstance(factor, DTensor)
        if looked_at and bool((factor == 1).all()):
            continue
        if len(gradients) == 1:
            gradients[0].mul_(factor)
        elif gradients[0].dim() < 2:
            torch._foreach_mul_(gradients, list(factor.unbind()))
        else:
            parts = torch.split(factor, [len(g) for g in gradients])
            rows = [p.view(-1, *[1] * (g.dim() - 1)) for p, g in zip(parts, gradients, strict=True)]
            torch._foreach_mul_(gradients, rows)
    return factors


def _unit_norms(tensors: list[Tensor]) -> Tensor:
    """Return the norms of the units of one tensor, in its shape, or of several in one column."""
    if len(tensors) > 1 and tensors[0].dim() < 2:
        return torch.stack(torch._foreach_norm(tensors))
    tensor = tensors[0]
    if len(tensors) > 1:
        tensor = torch.cat([t if t.dim() == 2 else t.flatten(1) for t in tensors])
    rest = tuple(range(1, tensor.dim()))
    norm: Tensor = torch.linalg.vector_norm(tensor, dim=rest or None, keepdim=bool(rest))
    return norm


def _batches(parameters: Sequence[Tensor]) -> Iterable[tuple[list[Tensor], list[Tensor]]]:
    """Yield weights with their gradients: large ones alone, small ones of one fan-in together."""
    together: dict[object, tuple[list[Tensor], list[Tensor]]] = defaultdict(lambda: ([], []))
    sizes: dict[object, int] = defaultdict(int)
    for weight in parameters:
        gradient = weight.grad
        assert gradient is not None
        size = weight.numel()
        if size >= _SMALL or isinstance(weight, DTensor):
            yield [weight.detach()], [gradient]
        elif size:
            fan_in = size // len(weight) if weight.dim() > 1 else None
            key = (fan_in, weight.device, weight.dtype, gradient.dtype)
            weights, gradients = together[key]
            weights.append(weight)
            gradients.append(gradient)
            sizes[key] += size
            # more would go to several threads, which takes longer than so little work
            if weight.device.type == "cpu" and sizes[key] >= _SMALL:
                yield together.pop(key)
                sizes[key] = 0
    yield from together.values()


class AdaptiveClip(GradientClip):
    """Clip each unit's gradient to a share of the unit's weights: large updates are relative.

    Source: A. Brock, S. De, S. L. Smith, K. Simonyan, High-Performance Large-Scale Image
    Recognition Without Normalization, 2021, arXiv:2102.06171, equation 3. The paper leaves the
    last linear layer alone; here that is an option.

    When:
        Networks without normalization layers, above all with large batches and high rates.

    When not:
        Networks with batch norm, which do without it as a rule; layers that begin near 0, whose
        steps it makes tiny.

    Args:
        clip_factor: the largest ratio of a unit's gradient norm to its weight norm, above 0;
            ``inf`` clips nothing.
        eps: the least weight norm that is reckoned with, above 0, so that units whose weights are
            all zero still train.
        exclude_last: leave out the module that comes last among those with parameters.
        parameters: which parameters are clipped: ``"all"``, ``"weights"`` (two or more
            dimensions) or a list of name patterns.
        replace: see :class:`GradientClip`.

    Raises:
        ArgumentError: if a name pattern matches no parameter.
        ConflictError: beside the Trainer's ``gradient_clip_val`` or another clipping.
        TechniqueError: under manual optimization, FSDP1 and DeepSpeed.

    Logs at the Trainer's logging interval ``clipped_share``, the share of this step's units that
    were clipped.

    Example:
        >>> AdaptiveClip(0.02, exclude_last=True)
        AdaptiveClip(clip_factor=0.02, exclude_last=True)
    """

    clips_complex: ClassVar[bool] = True

    def __init__(
        self,
        clip_factor: float = 0.01,
        eps: float = 1e-3,
        exclude_last: bool = False,
        parameters: Selection = "all",
        replace: bool = False,
    ) -> None:
        super().__init__(replace)
        self.clip_factor = check_number(self, "clip_factor", clip_factor, "(0, inf]")
        self.eps = check_number(self, "eps", eps, "(0, inf)")
        self.exclude_last = check_flag(self, "exclude_last", exclude_last)
        self.parameters = check_selection(self, "parameters", parameters)
        self._chosen: Chosen | None = None

    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget what an earlier run left in this object."""
        super().prepare(trainer, pl_module)
        self._chosen = Chosen(lambda: self._select(pl_module))

    def let_go(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let go of the module."""
        super().let_go(trainer, pl_module)
        self._chosen = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_chosen": None}

    def why_nothing(self) -> str | None:
        """Return that no ratio is above the limit, if it is so."""
        return "clip_factor is inf" if self.clip_factor == float("inf") else None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the parameters, and tell if nothing is left to clip."""
        super().on_fit_start(trainer, pl_module)
        if not self._select(pl_module):
            self.warn_no_effect("it leaves out every parameter that is trained")

    def _select(self, pl_module: LightningModule) -> set[int]:
        chosen = {id(p) for _, p in select_parameters(pl_module, self.parameters)}
        return chosen - {id(p) for p in last_layer(pl_module)} if self.exclude_last else chosen

    def clip(
        self, pl_module: LightningModule, parameters: list[Tensor], logging: bool
    ) -> dict[str, Tensor | float]:
        """Clip each unit."""
        assert self._chosen is not None
        factors = adaptive_clip_(self._chosen.among(parameters), self.clip_factor, self.eps)
        if not (logging and factors):
            return {}
        whole = [f.full_tensor() if isinstance(f, DTensor) else f for f in factors]
        clipped = torch.cat([factor.reshape(-1).float() for factor in whole]) < 1
        return {"clipped_share": clipped.float().mean()}


def last_layer(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of the module that comes last among those that have any themselves."""
    layers: dict[str, list[nn.Parameter]] = {}
    for name, part in module.named_modules():
        # what a parametrization holds is its layer's
        layer = name.split(".parametrizations")[0]
        layers.setdefault(layer, []).extend(part.parameters(recurse=False))
    return next((own for own in reversed(layers.values()) if own), [])
