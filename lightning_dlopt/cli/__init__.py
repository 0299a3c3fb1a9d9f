"""The ``dlopt`` command."""

import sys
from collections.abc import Sequence
from importlib import import_module

OVERVIEW = """\
usage: dlopt COMMAND ...

Train Lightning modules with the techniques of lightning_dlopt.

commands:
  fit        train a module:           dlopt fit --config recipes/quickstart.yaml
  validate   run its validation loop:  dlopt validate --config ... --ckpt_path ...
  test       run its test loop:        dlopt test --config ... --ckpt_path ...
  predict    run its prediction loop:  dlopt predict --config ... --ckpt_path ...
  list       list the techniques, modules and data sets, one line each
  preview    draw a technique:         dlopt preview schedule CosineLR
             or its effect on images:  dlopt preview augmentation --config ...
  export     write a trained module:   dlopt export --config ... --ckpt_path ... --output model
  advise     say what to try on a run: dlopt advise --config recipes/quickstart.yaml
  compare    measure what changes do:  dlopt compare --config ... --arm NAME=overlay.yaml

`dlopt COMMAND --help` explains one of them.
"""

TRAINER_COMMANDS = ("fit", "validate", "test", "predict")
#: The others, each with its module here.
OTHER_COMMANDS = {
    "list": "catalogue",
    "preview": "preview",
    "export": "export",
    "advise": "advise",
    "compare": "compare",
}


def main(args: Sequence[str] | None = None) -> int:
    """Run the ``dlopt`` command and return its exit code.

    Args:
        args: the command's arguments, without its name; those of the process if None.

    Returns:
        0 when it did its work, 2 after a mistake of the user's (one line on stderr says which).
        Any other exception is a defect and is raised.
    """
    from lightning_dlopt.cli.mistakes import user_mistakes

    arguments = list(sys.argv[1:] if args is None else args)
    command = arguments[0] if arguments else "--help"
    try:
        if command in ("-h", "--help"):
            print(OVERVIEW, end="")
        elif command in TRAINER_COMMANDS:
            from lightning_dlopt.cli.train import run

            run(arguments)
        elif command in OTHER_COMMANDS:
            import_module(f"lightning_dlopt.cli.{OTHER_COMMANDS[command]}").run(arguments[1:])
        else:
            known = ", ".join([*TRAINER_COMMANDS, *OTHER_COMMANDS])
            print(f"dlopt: error: no command {command!r}; there are {known}", file=sys.stderr)
            return 2
    except user_mistakes() as error:
        from lightning_dlopt.core.errors import one_line

        print(f"dlopt: error: {one_line(error)}", file=sys.stderr)
        return 2
    return 0
