"""Exported files beside the module they came from, as a table."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lightning_dlopt.structure.summaries.latency import Latency
from lightning_dlopt.structure.summaries.text_table import text_table


@dataclass(frozen=True)
class Exported:
    """One file, or the module itself, and how it compares.

    Attributes:
        name: the file's name, or the module's class.
        path: where the file is; None for the module.
        bytes: its size; the module's is that of its saved ``state_dict``.
        difference: the largest one from the module's outputs, as a share of the largest output if
            that is above 1; of the module itself, 0.
        free_sizes: which sizes of the inputs may be others than the example's: ``"batch"``, and
            for texts ``"length"``. A file without the first takes single samples only.
        latency: milliseconds of a call by batch size, if it was measured.
        accuracy: the share of targets that it predicts, if there were class indices to compare.
        mean_difference: the mean one from the module's outputs, if there were other samples.
    """

    name: str
    path: str | None
    bytes: int
    difference: float = 0.0
    free_sizes: tuple[str, ...] = ("batch",)
    latency: Mapping[int, Latency] = field(default_factory=dict)
    accuracy: float | None = None
    mean_difference: float | None = None


class Exports(tuple[Exported, ...]):
    """The module and its files; ``print`` shows them as a table."""

    __slots__ = ()

    def as_dicts(self) -> list[dict[str, Any]]:
        """Return them as plain data."""
        return [
            {**asdict(one), "latency": {n: t._asdict() for n, t in one.latency.items()}}
            for one in self
        ]

    def __str__(self) -> str:
        sizes = list(dict.fromkeys(size for one in self for size in one.latency))
        shown = [
            name
            for name in ("accuracy", "mean_difference")
            if any(getattr(one, name) is not None for one in self)
        ]
        head = ["", "bytes", "largest difference", "free sizes"]
        head += [f"ms at batch size {size}" for size in sizes]
        rows = [[*head, *(name.replace("_", " ") for name in shown)]]
        for one in self:
            row = [one.name, f"{one.bytes:,}", f"{one.difference:.1e}" if one.path else "-"]
            row.append((", ".join(one.free_sizes) or "none") if one.path else "-")
            row += [str(one.latency.get(size, "-")) for size in sizes]
            values = (getattr(one, name) for name in shown)
            rows.append([*row, *("-" if value is None else f"{value:.4f}" for value in values)])
        return text_table(rows)
