"""``dlopt fit``, ``validate``, ``test`` and ``predict``: LightningCLI without its traps."""

import os
import sys
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentError as ParseError
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningCLI, SaveConfigCallback
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

import lightning_dlopt
from lightning_dlopt.cli.checkpoint_guard import CheckpointGuard, check_readable
from lightning_dlopt.cli.config_files import check_order
from lightning_dlopt.cli.mistakes import UsageError, parse_message
from lightning_dlopt.cli.optimizer_guard import OptimizerGuard
from lightning_dlopt.core.global_generators import kept_generators


class SaveConfig(SaveConfigCallback):
    """Keeps the configuration with the run, and doesn't write over another run's."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save it once.

        Raises:
            UsageError: if there is one already.
        """
        try:
            super().setup(trainer, pl_module, stage)
        except RuntimeError as error:
            if "to NOT exist" not in str(error):
                raise
            raise UsageError(
                f"{trainer.log_dir}/{self.config_filename} is another run's: give this one a "
                "folder of its own (--trainer.default_root_dir, or a logger that numbers its runs)"
            ) from error


class DloptCLI(LightningCLI):
    """LightningCLI in which ``lr_scheduler`` steps once for each optimizer step.

    Stock LightningCLI steps it once for each epoch, whatever its arguments count in.
    """

    def _parse_ckpt_path(self) -> None:
        path = self.config[self.config.subcommand].get("ckpt_path")
        if path:
            check_readable(path)
        super()._parse_ckpt_path()

    def instantiate_classes(self) -> None:
        """Build module, data and Trainer; what their constructors refuse is a user's mistake."""
        # the parser would build the deepest keys first: these before the model
        self._callbacks = self.config[self.subcommand].trainer.pop("callbacks", None)
        try:
            super().instantiate_classes()
        except (ValueError, TypeError, RuntimeError) as error:
            raise UsageError(parse_message(error)) from error
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, OptimizerGuard):
                callback.remember(self.model)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the Trainer, and first its callbacks, which the model must not depend on.

        A callback that has a network in its arguments draws from the global generators, and would
        change the model's initial weights, its dropout masks and the order of batches.
        """
        command: Any = self.subcommand
        self.config[command].trainer.callbacks = self._callbacks
        only: Any = self.config.clone()
        only[command] = type(only)(trainer=type(only)(callbacks=self._callbacks))
        with kept_generators(torch.device("cpu")):
            built = self.parser.instantiate_classes(only)
        self.config_init[command].trainer.callbacks = built[command].trainer.callbacks
        return super().instantiate_trainer(**kwargs)

    @staticmethod
    def configure_optimizers(
        lightning_module: LightningModule,
        optimizer: Optimizer,
        lr_scheduler: LRScheduler | ReduceLROnPlateau | None = None,
    ) -> Any:
        """Return the optimizer with its scheduler, stepped at every step."""
        if lr_scheduler is None or isinstance(lr_scheduler, ReduceLROnPlateau):
            return LightningCLI.configure_optimizers(lightning_module, optimizer, lr_scheduler)
        schedule = {"scheduler": lr_scheduler, "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}


def configs_first(arguments: list[str]) -> list[str]:
    """Move ``--config`` before the other options, so that these win wherever they stand.

    A ``--trainer.callbacks+=...`` before a ``--config`` would be lost without a word.

    Example:
        >>> configs_first(["fit", "--trainer.max_epochs", "3", "--config", "a.yaml"])
        ['fit', '--config', 'a.yaml', '--trainer.max_epochs', '3']
    """
    configs, others = _split_configs(arguments)
    return [*others[:1], *chain.from_iterable(configs), *others[1:]]


def config_paths(arguments: list[str]) -> list[Path]:
    """Return the files that ``--config`` names and that exist, in order.

    A text that is no file is left to the parser, which says what is wrong or takes it as YAML.

    Example:
        >>> config_paths(["fit", "--config", "/no/such/file.yaml"])
        []
    """
    named = [config[-1].removeprefix("--config=") for config in _split_configs(arguments)[0]]
    return [Path(name) for name in named if os.path.isfile(name)]  # noqa: PTH113


def _split_configs(arguments: list[str]) -> tuple[list[list[str]], list[str]]:
    """Return each ``--config`` with its value, and the other arguments."""
    configs: list[list[str]] = []
    others: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument in ("--config", "-c"):
            configs.append([argument, *islice(rest, 1)])
        elif argument.startswith("--config="):
            configs.append([argument])
        else:
            others.append(argument)
    return configs, others


def run(arguments: list[str]) -> None:
    """Run one of the Trainer's commands.

    Raises:
        UsageError: if the arguments or the configuration can't be used.
    """
    run_cli(
        DloptCLI,
        arguments,
        save_config_callback=SaveConfig,
        trainer_defaults={"callbacks": [CheckpointGuard(), OptimizerGuard()]},
    )


def run_cli(cli: type[DloptCLI], arguments: list[str], **options: Any) -> DloptCLI:
    """Let a CLI do what the arguments, the first of which is a command, ask for, and return it.

    Raises:
        UsageError: if the arguments or the configuration can't be used.
    """
    _ = lightning_dlopt.__all__  # short class names are known once their classes are imported
    # the parser and the Trainer's launcher, which starts further processes, read them from there
    before, path = sys.argv, list(sys.path)
    # a user's module may lie in the current folder, but nothing there hides what is installed
    sys.path.append(os.getcwd())  # noqa: PTH109
    check_order(config_paths(arguments))
    sys.argv = [sys.argv[0], *configs_first(arguments)]
    try:
        return cli(parser_kwargs={"exit_on_error": False, "allow_abbrev": False}, **options)
    except ParseError as error:
        raise UsageError(parse_message(error)) from error
    finally:
        sys.argv, sys.path[:] = before, path
