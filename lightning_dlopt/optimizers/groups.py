"""Parameters sorted into groups: which decay, at what rate, and by what kind of step."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from torch import nn

from lightning_dlopt.core.checks import check_number, owner_name
from lightning_dlopt.core.errors import ArgumentError, ArgumentTypeError
from lightning_dlopt.core.parameters import plain_name, select_parameters

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


def _held(module: nn.Module) -> Iterator[tuple[str, nn.Parameter, nn.Module]]:
    """Yield each parameter once with its first name and the module that holds it."""
    seen: set[int] = set()
    for prefix, holder in module.named_modules():
        for name, parameter in holder.named_parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield plain_name(f"{prefix}.{name}" if prefix else name), parameter, holder


def _is_bias_or_norm(name: str, parameter: nn.Parameter, holder: nn.Module) -> bool:
    last = name.rpartition(".")[2]
    # attention keeps biases of three dimensions
    named_bias = last == "bias" or last.startswith("bias_") or last.endswith("_bias")
    return parameter.dim() < 2 or named_bias or isinstance(holder, _NORMS)


def undecayed(module: nn.Module, no_decay: NoDecay = "auto") -> set[int]:
    """Return the ids of the parameters that weight decay leaves alone.

    ``"auto"`` takes biases, every other tensor of fewer than two dimensions (gains, scales), and
    all parameters of torch's normalization layers. Embeddings are decayed.
    """
    if no_decay is None:
        return set()
    if no_decay == "auto":
        return {id(p) for name, p, holder in _held(module) if _is_bias_or_norm(name, p, holder)}
    return {id(p) for _, p in select_parameters(module, no_decay)}


def layer_numbers(module: nn.Module) -> tuple[dict[int, int], int]:
    """Return the number of the layer of every parameter, by id, and how many layers there are.

    A layer is a module that holds parameters of two or more dimensions, in the order of
    registration, which is taken for the order from input to output; the first is 0. A module
    with biases, gains and norms only belongs to the layer before it. A parameter that layers
    share belongs to the first that has it.

    Example:
        >>> layers = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Linear(2, 2))
        >>> numbers, count = layer_numbers(layers)
        >>> list(numbers.values()), count
        ([0, 0, 0, 0, 1, 1], 2)
    """
    numbers: dict[int, int] = {}
    count = 0
    for holder in module.modules():
        own = list(holder.named_parameters(recurse=False))
        if any(not _is_bias_or_norm(name, p, holder) for name, p in own):
            count += 1
        for _, parameter in own:
            numbers.setdefault(id(parameter), max(count - 1, 0))
    return numbers, max(count, 1)


def hidden_matrices(module: nn.Module) -> set[int]:
    """Return the ids of the matrices and kernels between embeddings and the last layer.

    Those are the parameters of two or more dimensions, without biases, norms, embeddings, and
    the layer that was registered last.
    """
    numbers, count = layer_numbers(module)
    return {
        id(parameter)
        for name, parameter, holder in _held(module)
        if not _is_bias_or_norm(name, parameter, holder)
        and not isinstance(holder, _EMBEDDINGS)
        and numbers[id(parameter)] != count - 1
    }


def sparse_embeddings(module: nn.Module) -> set[int]:
    """Return the ids of the weights of embeddings that give sparse gradients."""
    return {
        id(holder.weight)
        for holder in module.modules()
        if isinstance(holder, _EMBEDDINGS) and holder.sparse
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


def layer_scales(module: nn.Module, layer_decay: float | None) -> dict[int, float]:
    """Return by id what each parameter's rate is multiplied by; empty if nothing decays."""
    if layer_decay is None:
        return {}
    numbers, count = layer_numbers(module)
    return {key: layer_decay ** (count - 1 - number) for key, number in numbers.items()}
