"""Parameters of which some elements are 0 and stay so."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lightning_dlopt.core.errors import ArgumentError
from lightning_dlopt.core.replaced import Replaced
from lightning_dlopt.structure.magnitude.magnitude import (
    pack_mask,
    prune_by_magnitude_,
    unpack_mask,
)


class MaskedWeights:
    """Parameters by name, with a mask for each that only loses elements.

    Args:
        parameters: each once.
        packed: the masks that :meth:`packed` returned; by default nothing is pruned yet.

    Raises:
        ArgumentError: if those are for other parameters.

    Example:
        >>> weights = MaskedWeights({"weight": nn.Parameter(torch.tensor([3.0, -1.0]))})
        >>> weights.prune(0.5, "global")
        >>> weights.share, weights.packed()
        (0.5, {'weight': tensor([128], dtype=torch.uint8)})
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        packed: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.parameters = dict(parameters)
        if packed:
            sizes = {name: -(-p.numel() // 8) for name, p in self.parameters.items()}
            if {name: mask.numel() for name, mask in packed.items()} != sizes:
                raise ArgumentError(
                    f"the masks are for {', '.join(packed)}, and this run prunes "
                    f"{', '.join(sizes)}: names and sizes must be the same"
                )
            kept = {name: unpack_mask(packed[name], p.shape) for name, p in parameters.items()}
        else:
            kept = {name: torch.ones_like(p, dtype=torch.bool) for name, p in parameters.items()}
        self._set(kept)

    def _set(self, kept: Mapping[str, Tensor]) -> None:
        # in the weight's own type, for products of many tensors at once
        self.masks = [torch.empty_like(p).copy_(kept[name]) for name, p in self.parameters.items()]
        self.pruned = sum(int((mask == 0).sum()) for mask in self.masks)
        self.share = self.pruned / max(sum(mask.numel() for mask in self.masks), 1)

    def prune(self, sparsity: float, scope: str) -> None:
        """Prune that share of those that are trained at present."""
        masks = dict(zip(self.parameters, (mask != 0 for mask in self.masks), strict=True))
        trained = {name: p for name, p in self.parameters.items() if p.requires_grad}
        old = [masks[name] for name in trained]
        new = prune_by_magnitude_(list(trained.values()), sparsity, scope, old)
        self._set(masks | dict(zip(trained, new, strict=True)))

    @torch.no_grad()
    def mask(self) -> None:
        """Set what is pruned to 0 again."""
        if self.pruned:
            weights: list[Tensor] = list(self.parameters.values())
            torch._foreach_mul_(weights, self.masks)
            torch._foreach_add_(weights, 0.0)  # makes 0 of -0, which would compress badly

    @torch.no_grad()
    def mask_gradients(self) -> None:
        """Set the gradients of what is pruned to 0; sparse ones stay as they are."""
        pairs = [
            (parameter.grad, mask)
            for parameter, mask in zip(self.parameters.values(), self.masks, strict=True)
            if parameter.grad is not None and parameter.grad.layout is torch.strided
        ]
        if self.pruned and pairs:
            gradients, masks = zip(*pairs, strict=True)
            torch._foreach_mul_(gradients, masks)

    def follow(self, replaced: Replaced) -> None:
        """Take up cut parameters, with what is left of their masks."""
        pairs = zip(self.parameters.items(), self.masks, strict=True)
        kept = {name: replaced.cut(parameter, mask != 0) for (name, parameter), mask in pairs}
        self.parameters = {name: replaced.now(p) for name, p in self.parameters.items()}
        self._set(kept)

    def packed(self) -> dict[str, Tensor]:
        """Return the masks, eight elements in a byte."""
        packed = [pack_mask(mask != 0) for mask in self.masks]
        return dict(zip(self.parameters, packed, strict=True))

    def missing_from(self, module: nn.Module) -> list[str]:
        """Return the names of parameters that the module has no longer."""
        present = {id(parameter) for parameter in module.parameters()}
        return [name for name, p in self.parameters.items() if id(p) not in present]

    def came_back(self) -> int:
        """Return how many elements were pruned and aren't 0."""
        pairs = zip(self.parameters.values(), self.masks, strict=True)
        return sum(int(p.detach()[mask == 0].count_nonzero()) for p, mask in pairs)
