"""What a module holds, and what a call of it costs."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lightning_dlopt.core.checks import check_integer
from lightning_dlopt.core.errors import ArgumentError, ArgumentTypeError
from lightning_dlopt.structure.summaries.example import Example, call, evaluating, with_batch_size
from lightning_dlopt.structure.summaries.latency import Latency, measure_latency
from lightning_dlopt.structure.summaries.multiply_adds import count_multiply_adds
from lightning_dlopt.structure.summaries.text_table import text_table

#: The batch sizes whose latency is measured if nothing else is said.
BATCH_SIZES = (1, 256)


@dataclass(frozen=True)
class Summary:
    """What a module holds and costs; ``print`` shows it as a table.

    Attributes:
        parameters: how many numbers its parameters have, shared ones counted once.
        nonzero_parameters: how many of them aren't zero. Where a parametrization or torch's
            ``prune`` makes the weight that is used out of a parameter, that weight counts.
        trainable_parameters: how many of them are trained.
        multiply_adds: of one sample; see :func:`count_multiply_adds`.
        bytes: of the file that ``torch.save`` makes of the ``state_dict``.
        latency: milliseconds of a call by batch size, if it was measured.
    """

    parameters: int
    nonzero_parameters: int
    trainable_parameters: int
    multiply_adds: int
    bytes: int
    latency: Mapping[int, Latency] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        latency = {size: measured._asdict() for size, measured in self.latency.items()}
        return {**asdict(self), "latency": latency}

    def __str__(self) -> str:
        return str(Summaries({"": self}))


class Summaries(dict[str, Summary]):
    """Summaries by name; ``print`` shows them side by side."""

    def __str__(self) -> str:
        found = list(self.values())
        rows = [["", *self]] if any(self) else []
        for name in ("parameters", "nonzero_parameters", "trainable_parameters", "multiply_adds"):
            title = name.replace("_", " ").replace("nonzero", "non-zero").replace("y a", "y-a")
            rows.append([title, *(f"{getattr(one, name):,}" for one in found)])
        rows.append(["bytes", *(f"{one.bytes:,}" for one in found)])
        for size in found[0].latency if found else ():
            title = f"ms at batch size {size} (80% of calls)"
            rows.append([title, *(str(one.latency[size]) for one in found)])
        return text_table(rows)


def summarize(
    module: nn.Module, example: Example, *, latency: bool | Sequence[int] = False
) -> Summary:
    """Return a module's parameters, multiply-adds, bytes and, if asked for, latency.

    Args:
        module: is left as it was. It is called as in evaluation.
        example: its argument, a tuple of its arguments, or a dict of its keyword arguments, on its
            device. The first dimension of its tensors is the samples; for other batch sizes they
            are repeated or left out.
        latency: whether to measure how long a call takes, at batch sizes 1 and 256 or at those
            that are given.

    Raises:
        ArgumentError, ArgumentTypeError: if an argument has a bad value, or the module can't be
            called with the example.

    Example:
        >>> print(summarize(nn.Linear(100, 10), torch.zeros(1, 100)))  # doctest: +ELLIPSIS
        parameters            1,010
        non-zero parameters   1,010
        trainable parameters  1,010
        multiply-adds         1,000
        bytes                 ...
    """
    return _summaries("summarize", {"": module}, example, latency)[""]


def summarize_all(
    modules: Mapping[str, nn.Module], example: Example, *, latency: bool | Sequence[int] = False
) -> Summaries:
    """Return the summaries of several modules, whose latency is measured side by side.

    Args:
        modules: by name; the others as in :func:`summarize`.
        example: for all of them.
        latency: as in :func:`summarize`. The modules take turns.

    Example:
        >>> layers = {"narrow": nn.Linear(8, 2), "wide": nn.Linear(8, 20)}
        >>> print(str(summarize_all(layers, torch.zeros(1, 8))).splitlines()[0])
                              narrow   wide
    """
    return _summaries("summarize_all", modules, example, latency)


def _summaries(
    owner: str, modules: Mapping[str, nn.Module], example: Example, latency: bool | Sequence[int]
) -> Summaries:
    if not modules:
        raise ArgumentError(f"{owner}: modules must hold at least one")
    sizes = _check_sizes(owner, latency)
    single = with_batch_size(example, 1, owner)
    times = measured(modules, example, sizes, owner)
    return Summaries(
        {
            name: Summary(
                parameters=_count(module, Tensor.numel),
                nonzero_parameters=_count_nonzero(module),
                trainable_parameters=_count(module, lambda p: p.numel() * p.requires_grad),
                multiply_adds=count_multiply_adds(module, single),
                bytes=saved_bytes(module),
                latency={size: times[size][name] for size in sizes},
            )
            for name, module in modules.items()
        }
    )


def measured(
    modules: Mapping[str, nn.Module], example: Example, sizes: Sequence[int], owner: object
) -> dict[int, dict[str, Latency]]:
    """Return each module's latency, by batch size and name."""
    found: dict[int, dict[str, Latency]] = {}
    with ExitStack() as stack:
        for module in {id(module): module for module in modules.values()}.values():
            stack.enter_context(evaluating(module, owner))
        for size in sizes:
            batch = with_batch_size(example, size, owner)
            calls = {name: partial(call, one, batch, owner) for name, one in modules.items()}
            device = next((p.device for one in modules.values() for p in one.parameters()), "cpu")
            found[size] = measure_latency(calls, device)
    return found


def _check_sizes(owner: str, latency: Any) -> tuple[int, ...]:
    if isinstance(latency, bool):
        return BATCH_SIZES if latency else ()
    if not isinstance(latency, Sequence) or isinstance(latency, str):
        raise ArgumentTypeError(
            f"{owner}: latency={latency!r} must be True, False or a list of batch sizes"
        )
    return tuple(check_integer(owner, "latency", size, "[1, inf)") for size in latency)


def _count(module: nn.Module, count: Callable[[Tensor], int]) -> int:
    return sum(count(parameter) for parameter in module.parameters())


def _count_nonzero(module: nn.Module) -> int:
    used: dict[int, Tensor] = {}
    with evaluating(module, "summarize"):
        for part in module.modules():
            for name, parameter in part.named_parameters(recurse=False):
                mask = getattr(part, f"{name.removesuffix('_orig')}_mask", None)
                if name.endswith("_orig") and isinstance(mask, Tensor):
                    used[id(parameter)] = parameter * mask
            if not parametrize.is_parametrized(part):
                continue
            made_of: Any = part.parametrizations
            for name in made_of:
                original, weight = getattr(made_of[name], "original", None), getattr(part, name)
                if isinstance(original, Tensor) and original.shape == weight.shape:
                    used[id(original)] = weight
        parameters = list(module.parameters())
        return sum(int(used.get(id(one), one).count_nonzero()) for one in parameters)


class _CountedBytes:
    """A file that only counts what is written to it."""

    def __init__(self) -> None:
        self.written = 0

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self.written += size
        return size

    def flush(self) -> None:
        """Nothing waits to be written."""


def saved_bytes(module: nn.Module) -> int:
    """Return how large the file is that ``torch.save`` makes of a module's ``state_dict``."""
    file: Any = _CountedBytes()
    torch.save(module.state_dict(), file)
    return int(file.written)
