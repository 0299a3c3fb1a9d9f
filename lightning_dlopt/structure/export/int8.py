"""An ONNX file with 8-bit weights and activations."""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lightning_dlopt.core.errors import ArgumentError
from lightning_dlopt.structure.export.forms import OWNER, brief, feed_of

_PRODUCTS = ["Conv", "ConvTranspose", "Gemm", "MatMul"]


def quantize_onnx(source: Path, target: Path, batches: Iterable[Any]) -> None:
    """Write ``source`` with 8-bit integers, by ONNX Runtime's static quantization.

    Weights get one scale for each output channel; activations get one for each tensor, from the
    smallest and largest value that ``batches`` give them. Matrix products and convolutions are
    then computed in integers where the processor can; so is the rest, except in networks with
    attention.

    Args:
        source: an ONNX file of floating point; a file next to it is written on the way.
        target: the file that is written.
        batches: examples as the module takes them, at least one.

    Raises:
        ArgumentError: if there is no batch, or ONNX Runtime can't do it.
    """
    from onnx import load  # type: ignore[import-not-found, import-untyped, unused-ignore]
    from onnxruntime.quantization import (  # type: ignore[import-not-found, import-untyped, unused-ignore]
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import (  # type: ignore[import-not-found, import-untyped, unused-ignore]
        quant_pre_process,
    )

    graph = load(source, load_external_data=False).graph
    names = [given.name for given in graph.input]
    # next to a softmax there may be masks of minus infinity, which have no range to be divided
    attends = any(node.op_type == "Softmax" for node in graph.node)
    feeds = (feed_of(batch, names) for batch in batches)

    class Reader(CalibrationDataReader):  # type: ignore[misc, unused-ignore]
        def __init__(self, given: Iterator[dict[str, Any]]) -> None:
            self.given = given

        def get_next(self) -> dict[str, Any] | None:
            return next(self.given, None)

    first = next(feeds, None)
    if first is None:
        raise ArgumentError(f"{OWNER}: the format 'int8' needs at least one batch of calibration")

    def all_feeds() -> Iterator[dict[str, Any]]:
        yield first
        yield from feeds

    prepared = target.with_name(f"prepared_{target.name}")
    quiet = logging.getLogger()
    level = quiet.level
    try:
        quiet.setLevel(logging.ERROR)  # it advises by the root logger what is done here anyway
        # shapes are known from the export; what it adds are folded constants
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(target),
            Reader(all_feeds()),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_PRODUCTS if attends else None,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
        )
    except ArgumentError:
        raise
    except Exception as error:
        raise ArgumentError(f"{OWNER}: it can't be quantized: {brief(error)}") from error
    finally:
        quiet.setLevel(level)
        prepared.unlink(missing_ok=True)
