"""Layers of one structure with common parameters."""

from fnmatch import fnmatchcase
from itertools import accumulate
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from lightning_dlopt.core.checks import check_text
from lightning_dlopt.core.errors import ArgumentError
from lightning_dlopt.core.named_modules import listing
from lightning_dlopt.structure.replacing import part_names
from lightning_dlopt.structure.sharing.tie_parameters import Sharing, tie_parameters


def matching_layers(module: nn.Module, pattern: str) -> dict[str, nn.Module]:
    """Return the outermost parts whose names match, and that have parameters, by name.

    ``*`` matches dots, too; parts of a part that matches are left out.

    Raises:
        ArgumentError: if the pattern matches no part.

    Example:
        >>> net = nn.ModuleDict({"layers": nn.ModuleList(nn.Linear(2, 2) for _ in range(2))})
        >>> list(matching_layers(net, "layers.*"))
        ['layers.0', 'layers.1']
    """
    parts = {name: part for name, part in part_names(module).items() if name}
    matched = {name: part for name, part in parts.items() if fnmatchcase(name, pattern)}
    if not matched:
        raise ArgumentError(
            f"no module's name matches {pattern!r}; there are {listing(list(parts)) or 'none'}"
        )
    outermost = {}
    for name, part in matched.items():
        *above, _ = accumulate(name.split("."), "{}.{}".format)
        if not matched.keys() & set(above) and next(part.parameters(), None) is not None:
            outermost[name] = part
    return outermost


def share_layers(module: nn.Module, pattern: str) -> list[tuple[str, str]]:
    """Let every layer whose name matches use the parameters of the first one, in place.

    See :class:`ShareLayers`. Make the optimizer afterwards.

    Args:
        module: the module that is changed.
        pattern: matches the layers' names (``fnmatch``); what is inside of one that matches
            doesn't count, nor do layers without parameters.

    Returns:
        Which parameter's name took the Parameter of which.

    Raises:
        ArgumentError: if the pattern matches nothing, or layers of several structures; the module
            is as it was.

    Example:
        >>> net = nn.Sequential(*(nn.Linear(2, 2) for _ in range(3)))
        >>> len(share_layers(net, "*")), net[2].weight is net[0].weight
        (4, True)
    """
    check_text("share_layers", "pattern", pattern)
    (first, model), *others = matching_layers(module, pattern).items() or [("", nn.Module())]
    pairs = []
    for name, layer in others:
        if (difference := _difference(model, layer)) is not None:
            raise ArgumentError(
                f"{pattern!r} matches {first} and {name}, which are of different structure: "
                f"{difference}. Give a pattern that matches layers of one structure"
            )
        for parameter, _ in layer.named_parameters(remove_duplicate=False):
            pairs.append((f"{name}.{parameter}", f"{first}.{parameter}"))
    return tie_parameters(module, pairs) if pairs else []


def _difference(model: nn.Module, layer: nn.Module) -> str | None:
    """Return in what two layers differ, if not only in their settings and parameters' shapes."""
    kinds = [_classes(model), _classes(layer)]
    if kinds[0] != kinds[1]:
        names = (" with ".join(cls.__name__.lstrip("_") for cls in each) for each in kinds)
        return "a " + " and a ".join(names)
    left, right = _outline(model), _outline(layer)
    for name in [*left, *right]:
        one, other = left.get(name, "missing"), right.get(name, "missing")
        if one != other:
            return f"their {name} is {one} and {other}"
    return None


def _outline(layer: nn.Module) -> dict[str, str]:
    """Return the class of every part that has parameters of its own, and which it has."""
    return {
        name or "own part": f"{type(part).__name__} with {', '.join(own)}"
        for name, part in part_names(layer).items()
        if (own := [key for key, parameter in part._parameters.items() if parameter is not None])
    }


def _classes(layer: nn.Module) -> list[type[nn.Module]]:
    """Return the layer's class and those of its parametrizations."""
    if not is_parametrized(layer):
        return [type(layer)]
    computed: Any = layer.parametrizations
    # torch makes a class for each such layer
    return [type(layer).__bases__[0], *(type(one) for each in computed.values() for one in each)]


class ShareLayers(Sharing):
    """Lets all layers of a stack use one set of parameters, as ALBERT does.

    What changes in training: before it starts, every matching layer gets the Parameters of the
    first one. A stack of n layers has the parameters of one, its gradient is the sum over all,
    and optimizers hold and step it once. Multiply-adds and the time of a step stay the same.
    Buffers, such as BatchNorm's running statistics, stay each layer's own, since every layer sees
    other inputs; so do settings without parameters, such as a dropout rate. The initial values
    are the first layer's.

    The ``state_dict`` keeps all names; about files see :class:`TieParameters`.

    From Z. Lan, M. Chen, S. Goodman, K. Gimpel, P. Sharma, R. Soricut, ALBERT: A Lite BERT for
    Self-supervised Learning of Language Representations (2019, arXiv:1909.11942), whose layers
    share all parameters, as here; their factorized embedding is no part of this.

    When:
        Parameters, the file or the optimizer's memory are the limit, and the stack's layers are
        equal.

    When not:
        Time is the limit, for a step takes as long; accuracy is, for there is less to learn with.

    Args:
        pattern: matches the layers' names (``fnmatch``, case-sensitive), such as
            ``"encoder.layers.*"``. Only the outermost matches count, not what is inside of them,
            and no layer without parameters.

    Raises:
        ArgumentError, ArgumentTypeError: if ``pattern`` is no text.
        TechniqueError: if the pattern matches nothing, or layers of several structures (classes,
            names, shapes, dtypes, ``requires_grad``), and for the reasons that
            :class:`TieParameters` has.

    Warns:
        NoEffectWarning: if fewer than two layers match, or they share their parameters already.

    A checkpoint keeps the arguments and the plan: which parameters are one.
    :func:`load_from_checkpoint` shares them again.

    Example:
        >>> ShareLayers("encoder.layers.*")
        ShareLayers(pattern='encoder.layers.*')
    """

    nothing_to_do = "the matching layers with parameters are one already, or fewer than two"

    def __init__(self, pattern: str) -> None:
        self.pattern = check_text(self, "pattern", pattern)

    def share(self, module: nn.Module) -> list[tuple[str, str]]:
        """Let the layers share."""
        return share_layers(module, self.pattern)
