"""Writing a module to files that run without its code, and comparing them with it."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_dlopt.core.checks import check_choice, check_number
from lightning_dlopt.core.errors import ArgumentError, ArgumentTypeError, one_line
from lightning_dlopt.structure.export.compare import (
    compare_outputs,
    evaluate_both,
    latencies_of,
)
from lightning_dlopt.structure.export.exported import Exported, Exports
from lightning_dlopt.structure.export.forms import (
    OWNER,
    SUFFIXES,
    Traced,
    check_packages,
    load_onnx,
    load_torch,
    trace,
    write_onnx,
)
from lightning_dlopt.structure.export.int8 import quantize_onnx
from lightning_dlopt.structure.summaries.example import (
    Example,
    call,
    evaluating,
    length_of,
    padded_to,
    single_samples,
)
from lightning_dlopt.structure.summaries.summarize import saved_bytes


def export_module(
    module: nn.Module,
    example: Example,
    path: str | Path,
    *,
    formats: Sequence[str] = ("torch_export", "onnx"),
    tolerance: float = 1e-4,
    overwrite: bool = False,
    latency: bool = False,
    calibration: Iterable[Example] = (),
    evaluation: Iterable[tuple[Example, Any]] = (),
    pad_id: int | None = None,
) -> Exports:
    """Write what a module computes to files that run without its code, and compare them with it.

    Each file is loaded again and run on the example, on one sample of it, and on three samples
    more than it has. Only if all of them agree with the module are the files put in place.
    A file takes any batch size if the module's code allows it, and otherwise single samples; and
    texts (token ids or masks, ``(batch, length)``) of any length if it allows that, and otherwise
    of the example's length.

    ``"int8"`` is for processors that are faster with 8-bit integers than with floating point; what
    it costs in accuracy has to be measured, for which there is ``evaluation``.

    Args:
        module: computes in evaluation, and is left as it was; what is written is its ``forward``.
        example: its argument, a tuple of its arguments, or a dict of its keyword arguments, on its
            device. The first dimension of its tensors is the samples.
        path: of the files, without their ends such as ``.onnx``; in a folder that is there already
            they are called ``model``.
        formats: ``"torch_export"`` writes ``.pt2`` by ``torch.export``, ``"onnx"`` writes
            ``.onnx`` by ``torch.onnx``, and ``"int8"`` writes ``.int8.onnx`` by ONNX Runtime's
            static quantization. The last two need ``pip install 'lightning-dlopt[export]'``.
        tolerance: how far outputs may differ, as a share of the largest output if that is above
            1; from 0. What has 8 bits isn't held to it.
        overwrite: whether files of these names may be replaced.
        latency: whether to measure how long calls take, at batch sizes 1 and 256, in turns.
        calibration: examples that ``"int8"`` takes the range of the activations from.
        evaluation: examples with their targets, on which ``"int8"`` is compared with the module:
            by the share of right predictions where targets are class indices, and otherwise by
            the mean difference of the outputs.
        pad_id: where only texts of the example's length can be taken, those of ``calibration`` and
            ``evaluation`` are padded with it on the right, or cut; None leaves them as they are.

    Returns:
        The module and the files, in the order of ``formats``.

    Raises:
        ArgumentError, ArgumentTypeError: if an argument has a bad value, a file is there already
            or can't be written, the module can't be exported, or a file differs from it.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     found = export_module(
        ...         nn.Linear(4, 2), torch.zeros(3, 4), folder, formats=["torch_export"]
        ...     )
        ...     Path(folder, "model.pt2").exists(), found[1].name, found[1].difference
        (True, 'model.pt2', 0.0)
    """
    targets = target_files(path, formats)
    names = list(targets)
    tolerance = check_number(OWNER, "tolerance", tolerance, "[0, inf)")
    for target in targets.values():
        if target.is_dir():
            raise ArgumentError(f"{OWNER}: {target} is a folder: give another path")
        if target.exists() and not overwrite:
            raise ArgumentError(f"{OWNER}: {target} is there already: say overwrite=True")
    check_packages(names)
    length = length_of(example)

    def fitted(given: Any, free: Sequence[str]) -> Any:
        if pad_id is None or length is None or "length" in free:
            return given
        return padded_to(given, length, pad_id)

    with _room_in(next(iter(targets.values())).parent) as folder:
        with evaluating(module, OWNER):
            traced = _trace(module, example)
            free = traced.free
            calibrated = (fitted(given, free) for given in calibration)
            written = _write(traced, folder, names, calibrated)
            runs = {
                name: (load_torch if name == "torch_export" else load_onnx)(written[name])
                for name in names
            }
            differences = compare_outputs(module, example, runs, free, tolerance)
            times = latencies_of(module, example, runs, free) if latency else {}
            pairs = ((fitted(given, free), target) for given, target in evaluation)
            marks = evaluate_both(module, runs, pairs, free)
        measured: dict[str, dict[str, Any]] = {
            name: {"latency": times.get(name, {}), **marks.get(name, {})}
            for name in ("module", *names)
        }
        size = saved_bytes(module)
        rows = [Exported(type(module).__name__, None, size, **measured["module"])]
        for name, target in targets.items():
            size, apart = written[name].stat().st_size, differences[name]
            rows.append(Exported(target.name, str(target), size, apart, free, **measured[name]))
        for name, target in targets.items():
            written[name].replace(target)
    return Exports(rows)


@contextmanager
def _room_in(parent: Path) -> Iterator[Path]:
    """Yield a new folder in another, where files are made before they are put in place."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        room = tempfile.TemporaryDirectory(prefix=".export_", dir=parent)
    except OSError as error:
        raise ArgumentError(f"{OWNER}: {parent} can't be written to: {one_line(error)}") from error
    with room as folder:
        yield Path(folder)


def target_files(path: str | Path, formats: Sequence[str]) -> dict[str, Path]:
    """Return the files that :func:`export_module` writes, by format; errors as there.

    Example:
        >>> target_files("runs/net", ["onnx"])["onnx"].name
        'net.onnx'
    """
    if isinstance(formats, str) or not isinstance(formats, Sequence):
        raise ArgumentTypeError(
            f"{OWNER}: formats={formats!r} must be a list of {', '.join(map(repr, SUFFIXES))}"
        )
    if not formats:
        raise ArgumentError(f"{OWNER}: formats must hold at least one")
    for name in formats:
        check_choice(OWNER, "formats", name, list(SUFFIXES))
    if not isinstance(path, str | Path):
        raise ArgumentTypeError(f"{OWNER}: path={path!r} must be a str or a Path")
    try:
        stem = Path(path) / "model" if Path(path).is_dir() else Path(path)
        targets = {name: stem.with_name(stem.name + SUFFIXES[name]) for name in formats}
        for target in targets.values():
            target.exists()
    except (OSError, ValueError) as error:  # too long, or no name at all
        raise ArgumentError(f"{OWNER}: path={str(path)!r}: {one_line(error)}") from error
    return targets


def _trace(module: nn.Module, example: Example) -> Traced:
    call(module, example, OWNER)  # its own error is clearer than the tracer's
    return trace(module, example)


def _write(
    traced: Traced, folder: Path, formats: Sequence[str], calibration: Iterable[Example]
) -> dict[str, Path]:
    written = {name: folder / f"model{suffix}" for name, suffix in SUFFIXES.items()}
    if "torch_export" in formats:
        torch.export.save(traced.program, written["torch_export"])
    if "onnx" in formats or "int8" in formats:
        write_onnx(traced, written["onnx"])
    if "int8" in formats:
        given = calibration if traced.free else single_samples(calibration)
        quantize_onnx(written["onnx"], written["int8"], given)
    return written
