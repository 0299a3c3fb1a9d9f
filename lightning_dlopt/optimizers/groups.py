"""Parameters sorted into groups: which decay, at what rate, and by what kind of step."""

from collections.abc import Container, Iterator, Sequence
from typing import Any, TypeAlias, cast

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from lightning_dlopt.core.checks import check_number, owner_name
from lightning_dlopt.core.errors import ArgumentError, ArgumentTypeError
from lightning_dlopt.core.parameters import select_parameters

#: ``"auto"``, name patterns such as ``["*.bias", "embedding.*"]``, or None for none.
NoDecay: TypeAlias = str | Sequence[str] | None

# the other normalization layers have parameters of one dimension only
_NORMS = (nn.LayerNorm, nn.RMSNorm)
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


def check_no_decay(owner: object, value: Any) -> NoDecay:
    """Return ``value`` if it says in a known way what isn't decayed, or raise."""
    problem = (
        f"{owner_name(owner)}: no_decay={value!r} must be 'auto', a list of name patterns or None"
    )
    if value is None or value == "auto":
        return "auto" if value else None
    if isinstance(value, str) or (isinstance(value, Sequence) and not value):
        raise ArgumentError(problem)
    if not isinstance(value, Sequence) or not all(isinstance(item, str) for item in value):
        raise ArgumentTypeError(problem)
    return list(value)


def check_layer_decay(owner: object, value: Any) -> float | None:
    """Return ``value`` if it is None or a number in (0, 1], or raise."""
    return None if value is None else check_number(owner, "layer_decay", value, "(0, 1]")


def _tensors(holder: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return a module's own parameters by name; those of a parametrized tensor by the tensor's."""
    own = list(holder.named_parameters(recurse=False))
    if not is_parametrized(holder):
        return own
    for tensor, parts in cast("nn.ModuleDict", holder.parametrizations).items():
        names = dict(parts.named_parameters())
        for name, parameter in names.items():
            # weight_norm's gain, called as its older form calls it
            gain = name == "original0" and "original1" in names
            own.append((f"{tensor}_g" if gain else tensor, parameter))
    return own


def _holders(module: nn.Module) -> Iterator[tuple[nn.Module, list[tuple[str, nn.Parameter]]]]:
    """Yield each module with its own parameters; parametrizations are part of what they hold."""
    parts: set[int] = set()
    for holder in module.modules():
        if id(holder) not in parts:
            if is_parametrized(holder):
                parts |= {id(part) for part in cast("nn.Module", holder.parametrizations).modules()}
            yield holder, _tensors(holder)


def _held(module: nn.Module) -> Iterator[tuple[str, nn.Parameter, nn.Module]]:
    """Yield each parameter once with its tensor's name and the first module that holds it."""
    seen: set[int] = set()
    for holder, own in _holders(module):
        for name, parameter in own:
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield name, parameter, holder


def _is_bias_or_norm(name: str, parameter: nn.Parameter, holder: nn.Module) -> bool:
    # attention keeps biases of three dimensions
    named_bias = name == "bias" or name.startswith("bias_") or name.endswith("_bias")
    gain = name.endswith("_g") and parameter.numel() == max(parameter.shape, default=1)
    return parameter.dim() < 2 or named_bias or gain or isinstance(holder, _NORMS)


def undecayed(module: nn.Module, no_decay: NoDecay = "auto") -> set[int]:
    """Return the ids of the parameters that weight decay leaves alone.

    ``"auto"`` takes biases, every other tensor of fewer than two dimensions (gains, scales),
    weight normalization's gains, and all parameters of torch's normalization layers. Embeddings
    are decayed.
    """
    if no_decay is None:
        return set()
    if no_decay == "auto":
        return {id(p) for name, p, holder in _held(module) if _is_bias_or_norm(name, p, holder)}
    return {id(p) for _, p in select_parameters(module, no_decay)}


def layer_numbers(
    module: nn.Module, held: Container[int] | None = None
) -> tuple[dict[int, int], int]:
    """Return the number of the layer of every parameter, by id, and how many layers there are.

    A layer is a module that holds parameters of two or more dimensions, in the order of
    registration, which is taken for the order from input to output; the first is 0. A module
    with biases, gains and norms only belongs to the layer before it. A parameter that layers
    share belongs to the first that has it. Where a layer trains none of its parameters, it counts
    only if it comes before all that do (it may be thawed later): a frozen teacher or target
    network behind or between them has no part in the order.

    Args:
        module: the module to look in.
        held: ids of the optimizer's parameters; no others make a layer. None for all.

    Example:
        >>> layers = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Linear(2, 2))
        >>> numbers, count = layer_numbers(layers)
        >>> list(numbers.values()), count
        ([0, 0, 0, 0, 1, 1], 2)
    """
    numbers: dict[int, int] = {}
    count, begun = 0, False
    for holder, own in _holders(module):
        if any(not _is_bias_or_norm(name, p, holder) for name, p in own):
            here = [p for _, p in own if held is None or id(p) in held]
            trains = any(parameter.requires_grad for parameter in here)
            begun = begun or trains
            count += trains or (bool(here) and not begun)
        for _, parameter in own:
            numbers.setdefault(id(parameter), max(count - 1, 0))
    return numbers, max(count, 1)


def hidden_matrices(module: nn.Module, held: Container[int] | None = None) -> set[int]:
    """Return the ids of the matrices and kernels between embeddings and the last layer.

    Those are the parameters of two or more dimensions, without biases, gains, norms, embeddings
    (also those that a decoder shares), and the last layer, as :func:`layer_numbers` counts them.
    """
    numbers, count = layer_numbers(module, held)
    embeddings = {
        id(parameter)
        for holder, own in _holders(module)
        if isinstance(holder, _EMBEDDINGS)
        for _, parameter in own
    }
    return {
        id(parameter)
        for name, parameter, holder in _held(module)
        if not _is_bias_or_norm(name, parameter, holder)
        and id(parameter) not in embeddings
        and numbers[id(parameter)] != count - 1
    }


def group_parameters(
    module: nn.Module,
    lr: float,
    no_decay: NoDecay = "auto",
    layer_decay: float | None = None,
) -> list[dict[str, Any]]:
    """Return a module's trainable parameters as param groups for any torch optimizer.

    The plain function under :class:`UseOptimizer`: what ``no_decay`` names gets
    ``weight_decay=0``, and with ``layer_decay`` layer i of n (:func:`layer_numbers`) has the rate
    ``lr * layer_decay ** (n - 1 - i)``.

    Args:
        module: the module whose parameters are grouped; frozen ones are left out.
        lr: the rate of the last layer.
        no_decay: see :class:`UseOptimizer`.
        layer_decay: see :class:`UseOptimizer`.

    Raises:
        ArgumentError: if a pattern matches nothing or a number is out of its range.

    Example:
        >>> layers = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        >>> for group in group_parameters(layers, lr=0.1, layer_decay=0.5):
        ...     print(len(group["params"]), group["lr"], group.get("weight_decay"))
        1 0.05 None
        1 0.05 0.0
        1 0.1 None
        1 0.1 0.0
    """
    owner = "group_parameters"
    lr = check_number(owner, "lr", lr, "[0, inf)")
    without = undecayed(module, check_no_decay(owner, no_decay))
    scales = layer_scales(module, check_layer_decay(owner, layer_decay))
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for parameter in (p for p in module.parameters() if p.requires_grad):
        key = (scales.get(id(parameter), 1.0), id(parameter) in without)
        if key not in groups:
            groups[key] = {"params": [], "lr": lr * key[0]}
            if key[1]:
                groups[key]["weight_decay"] = 0.0
        groups[key]["params"].append(parameter)
    return list(groups.values())


def layer_scales(
    module: nn.Module, layer_decay: float | None, held: Container[int] | None = None
) -> dict[int, float]:
    """Return by id what each parameter's rate is multiplied by; empty if nothing decays."""
    if layer_decay is None:
        return {}
    numbers, count = layer_numbers(module, held)
    return {key: layer_decay ** (count - 1 - number) for key, number in numbers.items()}
