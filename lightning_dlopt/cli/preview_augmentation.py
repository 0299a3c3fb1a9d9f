"""``dlopt preview augmentation``: training images as the training step will get them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from lightning_dlopt.cli.first_batch import Preview, image_rows, in_order, token_lines
from lightning_dlopt.cli.image_page import draw_page
from lightning_dlopt.cli.mistakes import Parser, UsageError, parse_message
from lightning_dlopt.cli.png import check_png
from lightning_dlopt.cli.train import DloptCLI, run_cli
from lightning_dlopt.core.batch_technique import BatchTechnique
from lightning_dlopt.core.global_generators import kept_generators


class AugmentationCLI(DloptCLI):
    """Builds the data and the techniques of a configuration for ``fit``, and nothing else."""

    def instantiate_classes(self) -> None:
        """Build the data, the callbacks, and the techniques in the model's ``augmentation``."""
        config = self.config["fit"]
        model = (config.get("model") or {}).get("init_args") or {}
        brought = model.get("augmentation") or []
        brought = brought if isinstance(brought, list) else [brought]
        callbacks = config.trainer.get("callbacks") or []
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
        if not config.get("data"):
            raise UsageError(
                "the configuration has no data to be shown: give it a DataModule (data.class_path)"
            )
        self.overfits = bool(config.trainer.get("overfit_batches"))
        only: Any = self.config.clone()
        kind = type(only)
        trainer = kind(callbacks=[*callbacks, *brought])
        only["fit"] = kind(trainer=trainer, data=config.data)
        try:
            self.config_init = self.parser.instantiate_classes(only)
        except (ValueError, TypeError, RuntimeError) as error:
            raise UsageError(parse_message(error)) from error
        built = self.config_init["fit"]
        self.model, self.trainer = None, self  # type: ignore[assignment]
        self.datamodule = built.data
        everything = list(built.trainer.callbacks)
        place = SimpleNamespace(callbacks=everything[: len(callbacks)])
        if hasattr(self.datamodule, "bring_techniques"):
            self.datamodule.bring_techniques(place)
        found = [*place.callbacks, *everything[len(callbacks) :]]
        self.techniques = [one for one in found if isinstance(one, BatchTechnique)]

    def fit(self, **arguments: Any) -> None:
        """Train nothing."""


def find_preview(cli: AugmentationCLI) -> tuple[Preview, list[str]]:
    """Return the preview of a configuration, and what it shows, one line each."""
    techniques, datamodule = in_order(cli.techniques), cli.datamodule
    for technique in techniques:
        technique.check_rivals(techniques)
    idle = {repr(one): why for one in techniques if (why := one.neutral()) is not None}
    active = [one for one in techniques if one.neutral() is None]
    transform = getattr(datamodule, "train_transform", None)
    if transform is None and not active:
        if idle:
            raise UsageError("; ".join(f"{one} has no effect: {why}" for one, why in idle.items()))
        raise UsageError(
            "the configuration has no augmentation: neither a technique that changes batches in "
            "trainer.callbacks, data.init_args.augmentation or model.init_args.augmentation, nor "
            "a data.init_args.train_transform"
        )
    shown = [] if transform is None else [f"train_transform: {' '.join(repr(transform).split())}"]
    return Preview(datamodule, active, cli.overfits), [*shown, *map(described, active)]


def described(technique: BatchTechnique) -> str:
    """Return a technique with all its arguments that are set."""
    given = {name: value for name, value in technique.arguments().items() if value is not None}
    shown = ", ".join(f"{name}={value!r}" for name, value in given.items())
    return f"{type(technique).__name__}({shown})"


def run(arguments: list[str]) -> None:
    """Draw training images before and after augmentation."""
    parser = Parser(
        prog="dlopt preview augmentation",
        usage="%(prog)s --config FILE [--config OVERLAY ...] [options] [options of dlopt fit]",
        description="Draw the first training images of a run before and after its augmentation, "
        "with the very draws of its first step, and then with others. Nothing is trained. Of "
        "tokens the numbers are printed.",
        allow_abbrev=False,
    )
    parser.add_argument("--samples", type=int, default=8, help="how many samples (8)")
    parser.add_argument("--rounds", type=int, default=3, help="how many draws of each (3)")
    parser.add_argument(
        "--output", type=Path, default=Path("augmentation.png"), help="augmentation.png"
    )
    options, others = parser.parse_known_args(arguments)
    if options.samples < 1 or options.rounds < 1:
        raise UsageError("--samples and --rounds must be at least 1")
    check_png(options.output)
    if not others:
        raise UsageError("--config is missing: it says which run's augmentation is to be shown")
    with kept_generators(torch.device("cpu")):
        cli = run_cli(AugmentationCLI, ["fit", *others], save_config_callback=None)
        preview, head = find_preview(cli)  # type: ignore[arg-type]
        cli.datamodule.prepare_data()
        cli.datamodule.setup("fit")
        inputs = preview.input_of(preview.original())
        if inputs.dim() == 2 and not inputs.is_floating_point():
            print("\n".join([*head, *token_lines(preview, options.samples, options.rounds)]))
            return
        if inputs.dim() != 4:
            raise UsageError(
                f"inputs of shape {tuple(inputs.shape)} are neither images (B, C, H, W) nor tokens "
                "(B, length): they can't be shown"
            )
        draw_page(head, image_rows(preview, options.samples, options.rounds), options.output)
    print(f"wrote {options.output}")
