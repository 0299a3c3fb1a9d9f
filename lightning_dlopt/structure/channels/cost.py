"""What a module costs in multiply-adds or parameters, as a function of its layers' widths."""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.rnn import PackedSequence

from lightning_dlopt.core.parameters import plain_name
from lightning_dlopt.structure.channels.dims import places, width
from lightning_dlopt.structure.channels.eager import eager
from lightning_dlopt.structure.channels.graph import Group, Run, Width
from lightning_dlopt.structure.channels.widths import joined, named_tensors
from lightning_dlopt.structure.replacing import part_names

_NONE: Counter[Width] = Counter()


class Cost:
    """The sum of terms, each a constant times the share that is left of some widths.

    Args:
        module: the module, which is only read.
        groups: the channels that can be removed.
        factors: what each tensor's entry costs, by the tensor's name, and what a layer costs for
            each channel, by its name and side.
        constant: what it costs besides.
    """

    def __init__(
        self,
        module: nn.Module,
        groups: Iterable[Group],
        factors: dict[str, float],
        per_width: dict[Width, float],
    ) -> None:
        parts, tensors = part_names(module), named_tensors(module)
        # what is computed from other parameters has none of its own
        factors = {name: factor for name, factor in factors.items() if name in tensors}
        self.full: dict[Width, int] = {}
        keys: dict[str, list[Width]] = {name: [] for name in factors}
        for group in groups:
            for name, side in group.sides:
                if (name, side) in self.full:
                    continue
                self.full[name, side] = width(parts[name], side)
                for tensor, _, _ in places(parts[name], side):
                    full_name = joined(name, tensor)
                    if full_name in keys:
                        keys[full_name].append((name, side))
            for name, dim in group.alone:
                self.full[name, dim] = tensors[name].shape[dim]
                if name in keys:
                    keys[name].append((name, dim))
        self._terms = [(factors[name] * tensors[name].numel(), keys[name]) for name in factors]
        self._terms += [
            (value, [key] if key in self.full else []) for key, value in per_width.items()
        ]
        self._of: dict[Width, list[int]] = {key: [] for key in self.full}
        for number, (_, used) in enumerate(self._terms):
            for key in set(used):
                self._of[key].append(number)

    def total(self, gone: Counter[Width]) -> float:
        """Return the cost when so many channels are gone of each width."""
        return sum(self._value(number, gone) for number in range(len(self._terms)))

    def saving(self, gone: Counter[Width], more: Counter[Width]) -> float:
        """Return how much less it costs when ``more`` are gone, too."""
        touched = {number for key in more for number in self._of[key]}
        return sum(self._value(n, gone) - self._value(n, gone, more) for n in touched)

    def _value(self, number: int, gone: Counter[Width], more: Counter[Width] = _NONE) -> float:
        constant, keys = self._terms[number]
        return constant * math.prod(1 - (gone[k] + more[k]) / self.full[k] for k in keys)


def parameter_factors(module: nn.Module) -> dict[str, float]:
    """Return 1 for each parameter."""
    return {plain_name(name): 1.0 for name, _ in module.named_parameters()}


def multiply_add_factors(copy: nn.Module, run: Run) -> tuple[dict[str, float], dict[Width, float]]:
    """Return how often each weight is used in one run of a copy, which gets hooks and keeps them.

    Besides, what attention costs for each of its channels' products of queries, keys and values.
    """
    uses: Counter[str] = Counter()
    core: Counter[Width] = Counter()

    def watch(name: str, part: nn.Module) -> Any:
        def hook(_: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
            inputs = args[0] if args else next(iter(kwargs.values()))
            values = inputs.data if isinstance(inputs, PackedSequence) else inputs
            if isinstance(part, nn.MultiheadAttention):
                other = args[1] if len(args) > 1 else kwargs["key"]
                times = values.numel() // part.embed_dim
                length = other.shape[1 if part.batch_first and other.dim() == 3 else 0]
                core[name, "out"] += 2 * times * length * part.embed_dim
                used = ["in_proj_weight", "out_proj.weight"]
            elif isinstance(part, nn.RNNBase):
                times = values.numel() // part.input_size
                used = [key for key in part._parameters if key.startswith("weight")]
            elif isinstance(part, _ConvTransposeNd):
                times, used = values.numel() // part.in_channels, ["weight"]
            else:
                times, used = output.numel() // width(part, "out"), ["weight"]
            for key in used:
                uses[joined(name, key)] += times

        return hook

    for name, part in copy.named_modules():
        if isinstance(part, _ConvNd | nn.Linear | nn.RNNBase | nn.MultiheadAttention):
            part.register_forward_hook(watch(plain_name(name), part), with_kwargs=True)
    with torch.enable_grad(), eager():
        run(copy)
    return {name: float(times) for name, times in uses.items()}, {
        key: float(times) for key, times in core.items()
    }
