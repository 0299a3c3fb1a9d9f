"""Layers of low rank: two thin layers in the place of one."""

import warnings
from collections.abc import Sequence
from numbers import Integral
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from lightning_dlopt.core.checks import check_integer, check_number
from lightning_dlopt.core.errors import ArgumentError, CheckpointError
from lightning_dlopt.core.named_modules import listing
from lightning_dlopt.core.parameters import check_patterns
from lightning_dlopt.structure.replacing import matching_parts, part_names, replace_part
from lightning_dlopt.structure.surgery import Surgery

Layer: TypeAlias = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d

_KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class LowRankPair(nn.Sequential):
    """Two thin layers that compute what one layer did, whose weight is the product of theirs."""

    @property
    def weight(self) -> Tensor:
        """The weight of the one layer, computed at every call, for code that looks at it."""
        first, second = self._pair()
        product = matrix_of(second.weight) @ matrix_of(first.weight)
        return product.view(len(product), *first.weight.shape[1:])

    @property
    def bias(self) -> Any:
        """The bias of the one layer, which the second has."""
        return self._pair()[1].bias

    @property
    def rank(self) -> int:
        """How many values go from the first layer to the second."""
        return len(self._pair()[0].weight)

    def _pair(self) -> list[Any]:
        return list(self)


def matrix_of(weight: Tensor) -> Tensor:
    """Return a layer's weight as a matrix with a row for each output.

    Example:
        >>> matrix_of(nn.Conv2d(3, 8, 5).weight).shape
        torch.Size([8, 75])
    """
    return weight.flatten(1)


def factorize(layer: Layer, rank: int) -> LowRankPair:
    """Return the two layers of that rank whose product is nearest to a layer's weight.

    With the singular value decomposition ``U S V'`` of the weight as a matrix, of which the
    ``rank`` largest values are kept, the first layer's weight is ``sqrt(S) V'`` and the second's
    ``U sqrt(S)``. The error is the root of the sum of the squares of the values left out, and no
    matrix of that rank has a smaller one. A convolution becomes one of the same kernel to ``rank``
    channels, and one of kernel 1 behind it. The bias goes to the second layer.

    Args:
        layer: a ``Linear``, or a ``Conv1d``, ``Conv2d`` or ``Conv3d`` with one group.
        rank: in [1, rank of the matrix].

    Raises:
        ArgumentError: if the rank is outside its range.

    Example:
        >>> layer = nn.Linear(6, 4)
        >>> pair = factorize(layer, 4)
        >>> torch.allclose(pair.weight, layer.weight, atol=1e-6)
        True
    """
    matrix = matrix_of(layer.weight.detach())
    check_integer("factorize", "rank", rank, f"[1, {min(matrix.shape)}]")
    pair = _thin_pair(layer, rank)
    # there is no decomposition in half precision
    u, s, v = torch.linalg.svd(matrix.to(torch.promote_types(matrix.dtype, torch.float32)), False)
    root = s[:rank].sqrt()
    with torch.no_grad():
        for part, factor in zip(
            pair._pair(), (root[:, None] * v[:rank], u[:, :rank] * root), strict=True
        ):
            part.weight.copy_(factor.view_as(part.weight))
        if layer.bias is not None:
            pair.bias.copy_(layer.bias)
    return pair


def _thin_pair(layer: Layer, rank: int) -> LowRankPair:
    """Return two layers of that rank in the place of one, with any weights."""
    place: dict[str, Any] = {"device": layer.weight.device, "dtype": layer.weight.dtype}
    with_bias = layer.bias is not None
    skip_init: Any = nn.utils.skip_init  # which draws nothing

    def make(kind: Any, *sizes: Any, **settings: Any) -> Any:
        return skip_init(kind, *sizes, **settings, **place)

    if isinstance(layer, nn.Linear):
        first = make(nn.Linear, layer.in_features, rank, bias=False)
        second = make(nn.Linear, rank, layer.out_features, bias=with_bias)
    else:
        names = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
        settings = {name: getattr(layer, name) for name in names}
        first = make(type(layer), layer.in_channels, rank, bias=False, **settings)
        second = make(type(layer), rank, layer.out_channels, 1, bias=with_bias)
    for part in (first, second):
        part.weight.requires_grad_(layer.weight.requires_grad)
    if layer.bias is not None:
        second.bias.requires_grad_(layer.bias.requires_grad)
    return LowRankPair(first, second).train(layer.training)


def low_rank(
    module: nn.Module, rank: int | float = 0.25, target: str | Sequence[str] = "all"
) -> dict[str, int]:
    """Put two thin layers in the place of linear ones and convolutions, in place.

    See :func:`factorize` for the two, and :class:`LowRank` for which layers stay as they are.

    Args:
        module: the module that is changed. A layer by itself has no place to put them:
            :func:`factorize` returns them.
        rank: an int is the rank of every layer, a float in (0, 1] the share of each layer's full
            rank, rounded to at least 1.
        target: ``"all"``, or name patterns of layers.

    Returns:
        The names of the layers that were replaced, with their ranks.

    Raises:
        ArgumentError: if an argument is outside its range, a pattern matches nothing, or a
            weight isn't finite.

    Warns:
        UserWarning: if layers stay as they are for another reason than their size.

    Example:
        >>> low_rank(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)), 0.25)
        {'0': 16, '2': 2}
    """
    rank = check_rank("low_rank", rank)
    check_patterns("low_rank", "target", target, "all")
    done = {id(part) for pair in module.modules() if isinstance(pair, LowRankPair) for part in pair}

    def fits(part: nn.Module) -> bool:
        return isinstance(part, _KINDS) and part is not module and id(part) not in done

    users: dict[int, int] = {}  # how many layers have a weight
    for part in module.modules():
        for parameter in part.parameters(recurse=False):
            users[id(parameter)] = users.get(id(parameter), 0) + 1
    pairs: dict[str, tuple[nn.Module, LowRankPair]] = {}
    whole = []
    for name, layer in matching_parts(module, target, fits):
        assert isinstance(layer, _KINDS)
        if reason := _stays_whole(layer, users):
            whole.append(f"{name} ({reason})")
            continue
        outputs, inputs = matrix_of(layer.weight).shape
        full = min(outputs, inputs)
        kept = max(1, round(rank * full)) if isinstance(rank, float) else rank
        if kept * (outputs + inputs) < outputs * inputs:
            if not layer.weight.isfinite().all():
                raise ArgumentError(f"low_rank: the weight of {name} is not finite everywhere")
            pairs[name] = layer, factorize(layer, kept)
    for layer, pair in pairs.values():  # not earlier: an error leaves the module as it was
        replace_part(module, layer, pair)
    if whole:
        warnings.warn(f"low_rank leaves as they are: {listing(whole)}", stacklevel=2)
    return {name: pair.rank for name, (_, pair) in pairs.items()}


def _stays_whole(layer: Layer, users: dict[int, int]) -> str:
    """Return why a layer can't be replaced, whatever its size; nothing if it can."""
    if type(layer) not in _KINDS:
        # it may use its weight in another way, as attention does that of its output's layer
        return f"its class is {type(layer).__name__}"
    weight = layer._parameters.get("weight")
    if weight is None:
        return "its weight is computed"
    if users[id(weight)] > 1:
        return "its weight is another layer's, too"
    if any(value for name, value in vars(layer).items() if name.endswith("_hooks")):
        return "it has hooks"
    if not isinstance(layer, nn.Linear) and layer.groups > 1:
        return f"{layer.groups} groups"
    return ""


def check_rank(owner: object, rank: Any) -> int | float:
    """Return ``rank`` if it is an int of at least 1 or a float in (0, 1], or raise."""
    if isinstance(rank, Integral):
        return check_integer(owner, "rank", rank, "[1, inf)")
    return check_number(owner, "rank", rank, "(0, 1]")


class LowRank(Surgery):
    """Trains layers of low rank, with fewer parameters and multiply-adds.

    What changes in training: before it starts, each selected linear layer and convolution becomes
    two thin ones, of which the first has ``rank`` outputs. They start at the truncated singular
    value decomposition of the weight that the layer has then, be it an initial one or that of a
    trained model, and are trained like any other. Names in the ``state_dict`` change:
    ``fc.weight`` becomes ``fc.0.weight`` and ``fc.1.weight``. The layer that is put in has a
    ``weight`` to be looked at all the same.

    Parameters and multiply-adds fall, but there are two kernels where there was one, so latency
    may not: measure it. It is a strong intervention. In our own brief comparison one of two runs
    diverged at a rate of savings that channel pruning stood: take a higher rank first, warm the
    learning rate up, and leave out the first and the last layer by ``target`` (a share
    of few outputs is very few).

    For two thin layers from a trained one: E. Denton, W. Zaremba, J. Bruna, Y. LeCun, R. Fergus,
    Exploiting Linear Structure Within Convolutional Networks for Efficient Evaluation (2014,
    arXiv:1404.0736) and M. Jaderberg, A. Vedaldi, A. Zisserman, Speeding up Convolutional Neural
    Networks with Low Rank Expansions (2014, arXiv:1405.3866). A ``k x k`` convolution becomes a
    ``k x k`` one to ``rank`` channels and a ``1 x 1`` one, as in X. Zhang, J. Zou, X. Ming, K. He,
    J. Sun, Efficient and Accurate Approximations of Nonlinear Convolutional Networks (2014,
    arXiv:1411.4229), who fit it to a layer's outputs; here it is fitted to the weight, and not
    split in ``k x 1`` and ``1 x k``. For training from scratch: M. Khodak, N. Tenenholtz,
    L. Mackey, N. Fusi, Initialization and Regularization of Factorized Neural Layers (2021,
    arXiv:2105.01029), whose spectral initialization this is; their decay of the product's norm is
    not included, and an optimizer's weight decay acts on both factors by themselves.

    These stay as they are: layers that two thin ones would not make smaller, and, with a warning,
    convolutions with groups, and layers with hooks, with a computed weight, with a weight that
    another layer has, too, or of another class than torch's own ones: lazy layers, attention's
    output, and convolutions that ``BlurPool`` or ``WeightStandardization`` has changed, so list
    these behind this one. A layer that is used in several places is replaced in all of them.
    Frozen layers stay frozen. Nothing is drawn at random. Each process decomposes its own weights:
    equal ones give equal factors on equal machines, and DDP sends those of the first to all.

    When:
        Large linear layers with more weights than their task needs.

    When not:
        Small layers, a first or last one; or latency is the aim, and two kernels aren't faster than
        one.

    Args:
        rank: an int is the rank of every layer, at least 1. A float in (0, 1] is the share of each
            layer's full rank, the smaller side of the weight as a matrix
            ``(outputs, inputs * kernel)``; at 1.0 nothing changes.
        target: ``"all"``, or name patterns of layers.

    Raises:
        ArgumentError, ArgumentTypeError: if an argument has a bad value.
        TechniqueError: if a pattern matches nothing, or the optimizer was made before ``setup``.

    Warns:
        NoEffectWarning: if no layer gets smaller.

    A checkpoint keeps the arguments and the plan: the ranks of the layers by name.
    :func:`load_from_checkpoint` rebuilds the model.

    Example:
        >>> LowRank(rank=0.5, target=["encoder.*"])
        LowRank(rank=0.5, target=['encoder.*'])
    """

    makes = (LowRankPair,)

    def __init__(self, rank: int | float = 0.25, target: str | Sequence[str] = "all") -> None:
        self.rank = check_rank(self, rank)
        self.target = check_patterns(self, "target", target, "all")

    def operate(self, module: nn.Module, generator: torch.Generator) -> dict[str, Any]:
        """Replace the layers, and return the ranks of those in their place."""
        ranks = low_rank(module, self.rank, self.target)
        if not ranks:
            self.warn_no_effect("no layer among its target would get smaller by it")
            return {}
        return {"ranks": ranks}

    @classmethod
    def redo(cls, module: nn.Module, plan: dict[str, Any]) -> None:
        """Put pairs of the plan's ranks in the place of its layers."""
        parts = part_names(module)
        for name, rank in plan["ranks"].items():
            layer = parts.get(name)
            if type(layer) in _KINDS:
                assert isinstance(layer, _KINDS)
                replace_part(module, layer, _thin_pair(layer, rank))
            elif not isinstance(layer, LowRankPair) or layer.rank != rank:
                found = "missing" if layer is None else repr(layer)
                raise CheckpointError(
                    f"LowRank: the checkpoint has two layers of rank {rank} for {name!r}, and the "
                    f"module's is {found}"
                )
