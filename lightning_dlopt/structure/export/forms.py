"""The forms in which a module is written to a file for use without its code."""

import logging
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from lightning_dlopt.core.errors import ArgumentError, one_line
from lightning_dlopt.structure.summaries.example import (
    Example,
    arguments_of,
    batch_size,
    call,
    has_length,
    length_of,
    with_batch_size,
)

OWNER = "export_module"

_Shapes: Any = torch.export.ShapesCollection  # it has no types

#: The end of a file's name, by format.
SUFFIXES = {"torch_export": ".pt2", "onnx": ".onnx", "int8": ".int8.onnx"}

#: Computes the outputs of an example, on the CPU.
Run: TypeAlias = Callable[[Any], list[Tensor]]


def check_packages(formats: Iterable[str]) -> None:
    """Raise an ArgumentError if a format needs a package that isn't installed."""
    for name in formats:
        for package in ("onnx", "onnxscript", "onnxruntime") if name != "torch_export" else ():
            try:
                import_module(package)
            except ImportError as error:
                raise ArgumentError(
                    f"{OWNER}: the format {name!r} needs {package}: "
                    "pip install 'lightning-dlopt[export]'"
                ) from error


def tensors_in(values: Any) -> list[Tensor]:
    """Return the tensors in tuples, lists and dicts, in order, on the CPU.

    Example:
        >>> tensors_in({"logits": torch.tensor(1), "states": (None, torch.tensor(2))})
        [tensor(1), tensor(2)]
    """
    found: list[Tensor] = []
    apply_to_collection(values, Tensor, lambda tensor: found.append(tensor.detach().cpu()))
    return found


@contextmanager
def _plain_operators() -> Iterator[None]:
    """Keep torch from compiled functions, and from kernels that no other runtime knows."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    silenced = logging.root.manager.disable
    with torch.compiler.set_stance("force_eager"), warnings.catch_warnings():
        # recurrent layers list their weights anew, which are parameters all the same
        warnings.filterwarnings("ignore", "The tensor attributes .* were assigned during export")
        try:
            # each size that can't be free would be logged with its graph, though all is well
            logging.disable(max(silenced, logging.ERROR))
            torch.backends.mha.set_fastpath_enabled(False)
            yield
        finally:
            logging.disable(silenced)
            torch.backends.mha.set_fastpath_enabled(fast_path)


class Traced(NamedTuple):
    """What a module computes.

    Attributes:
        program: for all tensors of the sizes of the example but for those that are free.
        free: the names of the sizes that may be others: none, the batch's, or it and the length.
        names: those of each tensor's dimensions, in the form that ``torch.onnx`` takes.
    """

    program: ExportedProgram
    free: tuple[str, ...]
    names: Any


def trace(module: nn.Module, example: Example) -> Traced:
    """Return what a module computes, with as many free sizes as its code allows.

    Args:
        module: in evaluation.
        example: its arguments.

    Raises:
        ArgumentError: if ``torch.export`` can't follow it.
    """
    module = getattr(module, "_orig_mod", module)  # of a compiled one
    size, length = max(batch_size(example, OWNER), 2), length_of(example)
    with _plain_operators():
        for free in (("batch", "length"), ("batch",)):
            if "length" in free and length is None:
                continue
            given = with_batch_size(example, size, OWNER)
            shapes, names = _shapes_of(module, given, size, length if "length" in free else None)
            args, kwargs = arguments_of(given, OWNER)
            try:
                program = torch.export.export(module, args, kwargs, dynamic_shapes=shapes)
                return Traced(program, free, names)
            except Exception:  # a size that is written into it, or code that can't be followed
                continue
        args, kwargs = arguments_of(with_batch_size(example, 1, OWNER), OWNER)
        try:
            return Traced(torch.export.export(module, args, kwargs), (), None)
        except Exception as error:
            raise ArgumentError(
                f"{OWNER}: torch.export can't follow {type(module).__name__}: {brief(error)}"
            ) from error


def _shapes_of(
    module: nn.Module, example: Example, size: int, length: int | None
) -> tuple[Any, Any]:
    """Return which sizes are free for ``torch.export``, and their names for ``torch.onnx``."""
    shapes, names = _Shapes(), _Shapes()

    def mark(tensor: Tensor) -> Tensor:
        found = {0: "batch"} if tensor.shape[:1] == (size,) else {}
        if length is not None and has_length(tensor, length):
            found[1] = "length"
        if found:
            shapes[tensor], names[tensor] = dict.fromkeys(found, Dim.DYNAMIC), found
        return tensor

    apply_to_collection(example, Tensor, mark)
    args, kwargs = arguments_of(example, OWNER)
    return shapes.dynamic_shapes(module, args, kwargs), names.dynamic_shapes(module, args, kwargs)


def write_onnx(traced: Traced, path: Path) -> None:
    """Write what a module computes as ONNX.

    Raises:
        ArgumentError: if an operator isn't known there, or the file would be above 2 GB.
    """
    options: dict[str, Any] = {} if traced.names is None else {"dynamic_shapes": traced.names}
    try:
        with warnings.catch_warnings():
            # what isn't a tensor is no input of the file; only the batch's name is lost by it
            warnings.filterwarnings("ignore", ".*The dynamic axes will not be renamed")
            torch.onnx.export(
                traced.program, f=path, dynamo=True, external_data=False, verbose=False, **options
            )
    except Exception as error:
        unknown = re.search(r"No ONNX function found for <OpOverload\(op='([^']+)'", _whole(error))
        if unknown:
            raise ArgumentError(
                f"{OWNER}: ONNX has no operator for torch's {unknown[1]}, which the module calls: "
                "compute it by other operators, or leave 'onnx' and 'int8' out of the formats"
            ) from error
        raise ArgumentError(f"{OWNER}: ONNX can't be written: {brief(error)}") from error
    _drop_traces(path)


def _drop_traces(path: Path) -> None:
    """Take out of a file where in the source each operator comes from.

    That is paths of the machine at hand, and a large part of a small network's file.
    """
    import onnx  # type: ignore[import-not-found, import-untyped, unused-ignore]

    model = onnx.load(path, load_external_data=False)
    graph = model.graph
    for each in (*graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        del each.metadata_props[:]
    del graph.metadata_props[:]
    onnx.save(model, path)


def load_torch(path: Path) -> Run:
    """Return what computes a file of ``torch.export.save``."""
    module = torch.export.load(path).module()
    return lambda example: tensors_in(call(module, example, OWNER))


def load_onnx(path: Path) -> Run:
    """Return what computes an ONNX file, in ONNX Runtime with as many threads as torch has."""
    import onnxruntime  # type: ignore[import-not-found, import-untyped, unused-ignore]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ArgumentError(
            f"{OWNER}: ONNX Runtime can't load what was written: {brief(error)}"
        ) from error
    names = [given.name for given in session.get_inputs()]

    def run(example: Any) -> list[Tensor]:
        try:
            return [torch.as_tensor(out) for out in session.run(None, feed_of(example, names))]
        except Exception as error:
            raise ArgumentError(
                f"{OWNER}: ONNX Runtime can't run what was written: {brief(error)}"
            ) from error

    return run


def feed_of(example: Example, names: list[str]) -> dict[str, Any]:
    """Return ONNX Runtime's inputs.

    Raises:
        ArgumentError: if the example has another number of tensors, or no dtype of NumPy's.
    """
    args, kwargs = arguments_of(example, OWNER)
    tensors = tensors_in([args, kwargs])
    if len(tensors) != len(names):
        raise ArgumentError(
            f"{OWNER}: the module uses {len(names)} of the example's {len(tensors)} tensors "
            f"({', '.join(names) or 'none'}): leave the others out of the example"
        )
    try:
        return {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
    except TypeError as error:
        raise ArgumentError(f"{OWNER}: ONNX Runtime can't be given {one_line(error)}") from error


def brief(error: BaseException) -> str:
    """Return an error's class and the beginning of its message."""
    if type(error).__module__.startswith("torch.onnx") and error.__cause__ is not None:
        return brief(error.__cause__)  # what stands around it is about reports to torch
    text = one_line(str(error).strip().split("\n\n")[0])
    return f"{type(error).__name__}: {text if len(text) <= 300 else text[:297] + '...'}"


def _whole(error: BaseException | None) -> str:
    return "" if error is None else f"{error} {_whole(error.__cause__)}"
