"""``dlopt preview``: a technique's effect as a picture, before it is trained with."""

import ast
import os
from pathlib import Path
from typing import Any

import lightning_dlopt
from lightning_dlopt.cli.config_files import listed_callbacks
from lightning_dlopt.cli.mistakes import Parser, UsageError
from lightning_dlopt.cli.png import check_png, write_png
from lightning_dlopt.core.errors import one_line
from lightning_dlopt.schedules import PlateauLR, Schedule


def schedule_class(name: str) -> type[Schedule]:
    """Return a schedule's class by its short name or its full path."""
    found = getattr(lightning_dlopt.schedules, name.rsplit(".", 1)[-1], None)
    if not (isinstance(found, type) and issubclass(found, Schedule) and found is not Schedule):
        known = sorted(cls.__name__ for cls in Schedule.__subclasses__())
        raise UsageError(f"there is no schedule {name!r}; there are {', '.join(known)}")
    return found


def build(name: str, arguments: dict[str, Any]) -> Schedule:
    """Return a schedule by name; what its constructor refuses is a user's mistake."""
    cls = schedule_class(name)
    try:
        return cls(**arguments)
    except TypeError as error:
        raise UsageError(one_line(error)) from error


def from_text(text: str) -> Schedule:
    """Return the schedule that a text such as ``CosineLR(warmup='5%')`` describes.

    Only literal keyword arguments are read; nothing is evaluated.
    """
    try:
        call = ast.parse(text, mode="eval").body
        if isinstance(call, ast.Name):
            return build(call.id, {})
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and not call.args:
            names = [key.arg for key in call.keywords]
            if None in names or len(set(names)) < len(names):
                raise UsageError(f"{text!r}: each argument must be named, and once")
            values = [ast.literal_eval(key.value) for key in call.keywords]
            return build(call.func.id, dict(zip(map(str, names), values, strict=True)))
    except (SyntaxError, ValueError) as error:
        if isinstance(error, lightning_dlopt.core.UserError):
            raise
    raise UsageError(
        f"{text!r} is neither a configuration file nor a schedule such as CosineLR(warmup='5%')"
    )


def from_file(path: Path) -> list[Schedule]:
    """Return the schedules among the callbacks of a configuration file."""
    found = [
        build(class_path, arguments)
        for class_path, arguments in listed_callbacks(path)
        if hasattr(lightning_dlopt.schedules, class_path.rsplit(".", 1)[-1])
    ]
    if not found:
        raise UsageError(f"{path} has no schedule among its callbacks")
    return found


def draw(schedules: list[Schedule], total: int, epoch_steps: int, output: Path) -> None:
    """Draw each schedule's factor over a run and write a PNG."""
    from matplotlib.figure import Figure

    columns = min(3, len(schedules))
    rows = -(-len(schedules) // columns)
    figure = Figure(figsize=(4.2 * columns, 2.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis, schedule in zip(axes, schedules, strict=False):
        axis.plot(
            [step / epoch_steps for step in range(total)], schedule.simulate(total, epoch_steps)
        )
        axis.set_title(repr(schedule), fontsize=8, wrap=True)
        axis.set_ylim(bottom=0)
        axis.set_xlabel("epoch", fontsize=8)
        axis.set_ylabel("factor of the initial rate", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
    for axis in axes[len(schedules) :]:
        axis.set_visible(False)
    write_png(figure, output)


def run(arguments: list[str]) -> None:
    """Draw schedules given by name or by configuration file, or a page of augmented images."""
    if arguments[:1] == ["augmentation"]:
        from lightning_dlopt.cli.preview_augmentation import run as run_augmentation

        run_augmentation(arguments[1:])
        return
    parser = Parser(prog="dlopt preview", description="Draw what a technique does, as a PNG.")
    commands = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    schedule = commands.add_parser(
        "schedule",
        help="the curve of learning-rate schedules",
        description="Draw the curve of one or more learning-rate schedules.",
    )
    schedule.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="a configuration file, or a schedule such as CosineLR or \"CosineLR(warmup='5%%')\"",
    )
    schedule.add_argument("--epochs", type=int, default=10, help="epochs of the run (10)")
    schedule.add_argument("--epoch-steps", type=int, default=100, help="steps of an epoch (100)")
    schedule.add_argument("--output", type=Path, default=Path("schedule.png"), help="schedule.png")
    commands.add_parser("augmentation", help="training images before and after augmentation")
    options = parser.parse_args(arguments)
    if options.epochs < 1 or options.epoch_steps < 1:
        raise UsageError("--epochs and --epoch-steps must be at least 1")
    check_png(options.output)
    schedules: list[Schedule] = []
    for source in options.sources:
        path = Path(source)
        is_file = path.suffix in (".yaml", ".yml") or os.path.exists(source)  # noqa: PTH110
        schedules += from_file(path) if is_file else [from_text(source)]
    for entry in schedules:
        if isinstance(entry, PlateauLR):
            raise UsageError(f"{entry!r} depends on a metric, so it has no curve to draw")
    draw(schedules, options.epochs * options.epoch_steps, options.epoch_steps, options.output)
    print(f"wrote {options.output}")
