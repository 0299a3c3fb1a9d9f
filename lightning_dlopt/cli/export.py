"""``dlopt export``: a trained module as files that run without its code."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from lightning_dlopt.cli.batch_examples import BatchExamples, attached
from lightning_dlopt.cli.checkpoint_guard import check_same_model
from lightning_dlopt.cli.mistakes import Parser, UsageError
from lightning_dlopt.cli.train import DloptCLI, run_cli
from lightning_dlopt.core.batch import Key
from lightning_dlopt.core.global_generators import kept_generators
from lightning_dlopt.structure.export.export_module import export_module, target_files
from lightning_dlopt.structure.export.forms import tensors_in
from lightning_dlopt.structure.summaries.example import (
    batch_size,
    has_length,
    length_of,
    with_batch_size,
)
from lightning_dlopt.structure.surgery import restore_structure

#: How many samples of a batch the module is exported with.
_SAMPLES = 8


class ExportCLI(DloptCLI):
    """Builds the module, the data and the Trainer of a configuration, and runs nothing."""

    ckpt_path: str | None = None

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build one for this machine and process, wherever the run was: nothing is trained."""
        here = {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto"}
        return super().instantiate_trainer(**{**kwargs, **here})

    def test(self, ckpt_path: str | None = None, **_: Any) -> None:
        """Note which checkpoint was given."""
        self.ckpt_path = ckpt_path


def restored_module(cli: Any) -> tuple[LightningModule, dict[str, Any]]:
    """Return the module with the structure and the weights of the checkpoint, and this itself.

    Raises:
        UsageError: if there is no checkpoint.
        CheckpointError: if it belongs to another model.
    """
    if not cli.ckpt_path:
        raise UsageError("--ckpt_path is missing: it says whose weights are exported")
    if not Path(cli.ckpt_path).is_file():
        raise UsageError(f"--ckpt_path {cli.ckpt_path}: there is no such file")
    checkpoint = torch.load(cli.ckpt_path, map_location="cpu", weights_only=True)
    module: LightningModule = cli.model
    with attached(cli.trainer, module):  # layers may be made in either; both can be called again
        if is_overridden("setup", module):
            module.setup("test")
        if is_overridden("configure_model", module):
            module.configure_model()
    restore_structure(module, checkpoint)
    module.on_load_checkpoint(checkpoint)
    if module.strict_loading:
        check_same_model(module, checkpoint["state_dict"])
    module.load_state_dict(checkpoint["state_dict"], strict=module.strict_loading)
    return module, checkpoint


def input_lines(example: Any, free: Sequence[str]) -> list[str]:
    """Return what each tensor of an example may be.

    Example:
        >>> input_lines((torch.zeros(2, 3), {"mask": torch.ones(2, 5).bool()}), ["batch"])
        ['float32 (batch, 3)', 'bool (batch, 5)']
        >>> input_lines(torch.ones(2, 5).long(), ["batch", "length"])
        ['int64 (batch, length)']
    """
    size, length = batch_size(example), length_of(example)

    def described(tensor: Tensor) -> str:
        shape = [str(n) for n in tensor.shape]
        if tensor.shape[:1] == (size,):
            shape[0] = "batch" if "batch" in free else "1"
        if "length" in free and has_length(tensor, length):
            shape[1] = "length"
        return f"{str(tensor.dtype).removeprefix('torch.')} ({', '.join(shape)})"

    return [described(tensor) for tensor in tensors_in(example)]


def _parser() -> Parser:
    parser = Parser(
        prog="dlopt export",
        usage="%(prog)s --config FILE --ckpt_path FILE [options] [options of dlopt test]",
        description="Write a trained module to files that run without its code, and compare them "
        "with it. They compute what its forward does, for any batch size and any length of texts "
        "where it can. The example is the module's example_input_array, or the first batch of "
        "validation.",
        epilog="Formats: torch_export writes .pt2 (torch.export), onnx writes .onnx, and int8 "
        "writes .int8.onnx (8-bit integers, by ONNX Runtime; compared on the validation set, or "
        "else on the test set). The last two need pip install 'lightning-dlopt[export]'.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--output", type=Path, default=Path("model"), help="the files' path without .pt2 (model)"
    )
    parser.add_argument(
        "--format", default="torch_export,onnx", help="separated by commas (torch_export,onnx)"
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=1e-4,
        help="largest difference of the outputs, as a share of the largest if above 1 (1e-4)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    parser.add_argument("--no_latency", action="store_true", help="don't measure latency")
    parser.add_argument("--input_key", help="where the input is in a batch, if it isn't clear")
    parser.add_argument(
        "--calibration_batches", type=int, default=16, help="training batches for int8 (16)"
    )
    return parser


def run(arguments: list[str]) -> None:
    """Export a trained module."""
    options, others = _parser().parse_known_args(arguments)
    formats = [name.strip() for name in options.format.split(",") if name.strip()]
    for target in target_files(options.output, formats).values():
        if target.exists() and not options.overwrite:
            raise UsageError(f"--output: {target} is there already: say --overwrite")
    if options.calibration_batches < 1:
        raise UsageError("--calibration_batches must be at least 1")
    if not others:
        raise UsageError("--config is missing: it says how the module is built")
    given: str | None = options.input_key
    key: Key | None = int(given) if given is not None and given.isdigit() else given
    with kept_generators(torch.device("cpu")):
        cli = run_cli(ExportCLI, ["test", *others], save_config_callback=None)
        module, checkpoint = restored_module(cli)
        state = checkpoint.get(type(cli.datamodule).__qualname__)
        data = BatchExamples(module, cli.datamodule, key, state, cli.trainer)
        example = data.first()
        example = with_batch_size(example, min(batch_size(example), _SAMPLES))
        exports = export_module(
            module,
            example,
            options.output,
            formats=formats,
            tolerance=options.tolerance,
            overwrite=options.overwrite,
            latency=not options.no_latency,
            calibration=map(
                data.example_of, islice(data.batches("train"), options.calibration_batches)
            ),
            evaluation=_held_out(data),
            pad_id=getattr(cli.datamodule, "pad_id", None),
        )
    inputs = "; ".join(input_lines(example, exports[1].free_sizes))
    print(f"{type(module).__name__}.forward of {inputs}")
    print(exports)
    print("wrote", ", ".join(str(one.path) for one in exports if one.path))


def _held_out(data: BatchExamples) -> Any:
    """Yield the samples of validation, or if there are none of testing, with their targets."""
    found = False
    for pair in data.labelled("val"):
        found = True
        yield pair
    if not found:
        yield from data.labelled("test")
