"""Where a layer's channels lie in its tensors, for the layers whose channels can be removed."""

from collections.abc import Iterator
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

#: A tensor of the layer by its name, its dimension, and for each channel the places in it.
Places: TypeAlias = tuple[str, int, Tensor]

_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def is_depthwise(part: nn.Module) -> bool:
    """Return whether each channel of a convolution goes in and out by itself."""
    return (
        isinstance(part, _ConvNd)
        and part.groups == part.out_channels == part.in_channels
        and part.groups > 1
    )


def is_one_width(part: nn.Module) -> bool:
    """Return whether what comes out of a layer has the channels of what goes in."""
    return is_depthwise(part) or isinstance(
        part, (*_NORMS, nn.PReLU, nn.Embedding, nn.MultiheadAttention)
    )


def width(part: nn.Module, side: str) -> int:
    """Return how many channels go ``"in"`` to a layer or come ``"out"`` of it.

    Example:
        >>> width(nn.Linear(2, 3), "out"), width(nn.LSTM(2, 3, bidirectional=True), "out")
        (3, 6)
    """
    first = _attributes(part, side)[0]
    value = getattr(part, first)
    if isinstance(value, tuple):
        value = value[-1]
    if isinstance(part, nn.RNNBase) and side == "out":
        value = (part.proj_size or value) * _directions(part)
    return int(value)


def places(part: nn.Module, side: str) -> Iterator[Places]:
    """Yield where each channel of one side lies: places of shape ``(repeats, width)``.

    Example:
        >>> [(name, dim) for name, dim, _ in places(nn.Linear(2, 3), "out")]
        [('weight', 0), ('bias', 0)]
    """
    index = torch.arange(width(part, side))
    for name, dim, offsets, modulus in _table(part, side):
        if _tensor(part, name) is not None:
            yield name, dim, index % (modulus or len(index)) + torch.tensor(offsets).unsqueeze(1)


def narrowed(part: nn.Module, side: str, left: int) -> dict[str, dict[str, int | list[int]]]:
    """Return the attributes of a layer, or of layers in it, when so many channels are left.

    Example:
        >>> narrowed(nn.Linear(2, 3), "out", 1)
        {'': {'out_features': 1}}
    """
    if isinstance(part, nn.RNNBase) and side == "out":
        left //= _directions(part)
    own: dict[str, int | list[int]] = {}
    for name in _attributes(part, side):
        value = getattr(part, name)
        own[name] = [*value[:-1], left] if isinstance(value, tuple) else left
    if not isinstance(part, nn.MultiheadAttention):
        return {"": own}
    own["num_heads"] = left // part.head_dim
    return {"": own, "out_proj": {"in_features": left, "out_features": left}}


def coupled(part: nn.Module, side: str) -> Tensor | None:
    """Return a number for each channel; channels with the same must be removed together.

    Channel groups lose the same channels each, attention loses whole heads, and both directions
    of a recurrent layer the same units. None: each channel by itself.
    """
    index = torch.arange(width(part, side))
    if isinstance(part, nn.MultiheadAttention):
        return index // int(part.head_dim)
    if isinstance(part, nn.GroupNorm):
        return index % (part.num_channels // part.num_groups)
    if isinstance(part, nn.RNNBase) and side == "out" and part.bidirectional:
        return index % part.hidden_size
    if isinstance(part, _ConvNd) and part.groups > 1 and not is_depthwise(part):
        return index % (len(index) // part.groups)
    return None


def obstacle(part: nn.Module) -> str | None:
    """Return why a layer's channels can't be removed, if it is so."""
    own = {*dict(part.named_parameters()), *dict(part.named_buffers())}
    sides = ("out",) if is_one_width(part) else ("in", "out")
    if any(name not in own for side in sides for name, _, _ in places(part, side)):
        return "its weights are computed from others"
    if isinstance(part, nn.RNNBase) and part.proj_size:
        return "recurrent layers with proj_size aren't supported"
    if isinstance(part, nn.MultiheadAttention) and not part._qkv_same_embed_dim:
        return "attention with kdim or vdim isn't supported"
    if isinstance(part, nn.LayerNorm | nn.RMSNorm) and len(part.normalized_shape) > 1:
        return "it normalizes over more than the channels"
    return None


def _directions(part: nn.RNNBase) -> int:
    return 2 if part.bidirectional else 1


def _tensor(part: nn.Module, name: str) -> Tensor | None:
    *path, last = name.split(".")
    tensor: Tensor | None = getattr(part.get_submodule(".".join(path)), last)
    return tensor


def _attributes(part: nn.Module, side: str) -> tuple[str, ...]:
    if isinstance(part, nn.RNNBase):
        return ("input_size",) if side == "in" else ("hidden_size",)
    if is_depthwise(part):
        return "out_channels", "in_channels", "groups"
    if isinstance(part, _ConvNd):
        return (f"{side}_channels",)
    if isinstance(part, nn.Linear):
        return (f"{side}_features",)
    if isinstance(part, nn.MultiheadAttention):
        return "embed_dim", "kdim", "vdim"
    names = {
        _NormBase: "num_features",
        nn.GroupNorm: "num_channels",
        nn.LayerNorm: "normalized_shape",
        nn.RMSNorm: "normalized_shape",
        nn.PReLU: "num_parameters",
        nn.Embedding: "embedding_dim",
    }
    return (next(name for kind, name in names.items() if isinstance(part, kind)),)


def _table(part: nn.Module, side: str) -> Iterator[tuple[str, int, list[int], int | None]]:
    """Yield tensor, dimension, the offsets at which a channel lies, and what indices wrap at."""
    if isinstance(part, nn.RNNBase):
        yield from _recurrent_table(part, side)
    elif isinstance(part, nn.MultiheadAttention):
        e = part.embed_dim
        yield "in_proj_weight", 0, [0, e, 2 * e], None
        yield "in_proj_weight", 1, [0], None
        yield "in_proj_bias", 0, [0, e, 2 * e], None
        yield "bias_k", 2, [0], None
        yield "bias_v", 2, [0], None
        yield "out_proj.weight", 0, [0], None
        yield "out_proj.weight", 1, [0], None
        yield "out_proj.bias", 0, [0], None
    elif isinstance(part, nn.Embedding):
        yield "weight", 1, [0], None
    elif isinstance(part, (*_NORMS, nn.PReLU)):
        for name in ("weight", "bias", "running_mean", "running_var"):
            if hasattr(part, name):
                yield name, 0, [0], None
    elif is_depthwise(part):
        yield "weight", 0, [0], None
        yield "bias", 0, [0], None
    else:
        transposed = isinstance(part, _ConvTransposeNd)
        dim = 1 if (side == "in") != transposed else 0
        groups = part.groups if isinstance(part, _ConvNd) and dim == 1 else 1
        yield "weight", dim, [0], width(part, side) // groups
        if side == "out":
            yield "bias", 0, [0], None


def _recurrent_table(
    part: nn.RNNBase, side: str
) -> Iterator[tuple[str, int, list[int], int | None]]:
    hidden = part.hidden_size
    recurrent = part.get_parameter("weight_hh_l0")
    gates = [gate * hidden for gate in range(len(recurrent) // hidden)]
    for direction in ("", "_reverse")[: _directions(part)]:
        if side == "in":
            yield f"weight_ih_l0{direction}", 1, [0], None
            continue
        for layer in range(part.num_layers):
            end = f"l{layer}{direction}"
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                if part.bias or name.startswith("weight"):
                    yield f"{name}_{end}", 0, gates, hidden
            yield f"weight_hh_{end}", 1, [0], hidden
            if layer:
                yield f"weight_ih_{end}", 1, [hidden * d for d in range(_directions(part))], hidden
