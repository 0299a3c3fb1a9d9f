"""How far exported files are from the module they came from."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_dlopt.core.errors import ArgumentError
from lightning_dlopt.structure.export.forms import OWNER, Run, tensors_in
from lightning_dlopt.structure.summaries.example import (
    Example,
    batch_size,
    call,
    length_of,
    single_samples,
    with_batch_size,
    with_length,
)
from lightning_dlopt.structure.summaries.latency import Latency, measure_latency
from lightning_dlopt.structure.summaries.summarize import BATCH_SIZES


def _outputs(module: nn.Module, example: Example) -> list[Tensor]:
    return tensors_in(call(module, example, OWNER))


def compare_outputs(
    module: nn.Module, example: Example, runs: dict[str, Run], free: Sequence[str], tolerance: float
) -> dict[str, float]:
    """Return each file's largest difference; raise if it is too large."""
    count = batch_size(example, OWNER)
    largest = dict.fromkeys(runs, 0.0)
    sizes = [count, 1, count + 3] if free else [1]
    batches = [(size, with_batch_size(example, size, OWNER)) for size in sizes]
    if "length" in free:
        half = max(1, (length_of(example) or 0) // 2)
        batches.append((count, with_length(example, half)))
    for size, batch in batches:
        expected = _outputs(module, batch)
        for name, run in runs.items():
            difference = largest_difference(run(batch), expected)
            if not difference <= tolerance and name != "int8":
                raise ArgumentError(
                    f"{OWNER}: the format {name!r} differs from {type(module).__name__} by "
                    f"{difference:.2g} at batch size {size}, more than tolerance={tolerance:g}: "
                    "nothing was written"
                )
            largest[name] = max(largest[name], difference)
    return largest


def largest_difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Return the largest difference, as a share of the largest expected value if that is above 1.

    Values that are equal, infinite ones included, or NaN on both sides don't differ.

    Example:
        >>> largest_difference([torch.tensor([2.0, 102.0])], [torch.tensor([2.0, 100.0])])
        0.02
        >>> largest_difference([], [torch.tensor([2.0])])
        inf
    """
    if [one.shape for one in found] != [one.shape for one in expected]:
        return float("inf")
    largest = 0.0
    for one, other in zip(found, expected, strict=True):
        if one.is_complex() and other.is_complex():
            one, other = torch.view_as_real(one), torch.view_as_real(other)
        one, other = one.double(), other.double()
        same = (one == other) | (one.isnan() & other.isnan())
        finite = other[other.isfinite()].abs()
        scale = max(1.0, float(finite.max()) if finite.numel() else 1.0)
        apart = torch.where(same, 0.0, (one - other).abs()).nan_to_num(torch.inf, torch.inf)
        largest = max(largest, float(apart.max()) / scale if apart.numel() else 0.0)
    return largest


def latencies_of(
    module: nn.Module, example: Example, runs: dict[str, Run], free: Sequence[str]
) -> dict[str, dict[int, Latency]]:
    """Return how long calls of the module and the files take, by name and batch size."""
    found: dict[str, dict[int, Latency]] = {}
    for size in BATCH_SIZES:
        batch = with_batch_size(example, size, OWNER)
        files = runs if free or size == 1 else {}
        calls: dict[str, Any] = {name: partial(run, batch) for name, run in files.items()}
        calls["module"] = partial(_outputs, module, batch)
        for name, measured in measure_latency(calls).items():
            found.setdefault(name, {})[size] = measured
    return found


def evaluate_both(
    module: nn.Module,
    runs: dict[str, Run],
    evaluation: Iterable[tuple[Any, Any]],
    free: Sequence[str],
) -> dict[str, dict[str, Any]]:
    """Return the accuracy of the module and its 8-bit file, or how far their outputs differ."""
    if "int8" not in runs:
        return {}
    right, samples, apart, values = {"module": 0, "int8": 0}, 0, 0.0, 0
    classes = True
    for example, target in evaluation:
        expected = _outputs(module, example)
        parts = [runs["int8"](one) for one in ([example] if free else single_samples([example]))]
        found = [torch.cat(outputs) for outputs in zip(*parts, strict=True)]
        for one, other in zip(found, expected, strict=True):
            apart += float((one.double() - other.double()).abs().sum())
            values += one.numel()
        classes = classes and _are_classes(target, expected[0])
        if classes:
            samples += len(target)
            for name, logits in (("module", expected[0]), ("int8", found[0])):
                right[name] += int((logits.argmax(1) == target.cpu()).sum())
    if classes and samples:
        return {name: {"accuracy": count / samples} for name, count in right.items()}
    return {"int8": {"mean_difference": apart / values}} if values else {}


def _are_classes(target: Any, logits: Tensor) -> bool:
    return (
        isinstance(target, Tensor)
        and target.dim() == 1
        and not target.is_floating_point()
        and logits.dim() == 2
        and len(logits) == len(target)
    )
