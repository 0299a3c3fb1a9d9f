"""The errors and the warning this package raises.

Every error whose cause is something a user wrote (an argument, a configuration, a file) is a
:class:`UserError`, so that the command line can tell it from a defect and print one line.
"""

from lightning.fabric.utilities.exceptions import MisconfigurationException


class UserError(Exception):
    """Something the user can mend; the message names the thing, its value and what is allowed."""


class ArgumentError(UserError, ValueError):
    """An argument has a value outside its range."""


class ArgumentTypeError(UserError, TypeError):
    """An argument has the wrong type."""


class TechniqueError(UserError, MisconfigurationException):
    """A technique can't do its work on this module or with this Trainer."""


class ConflictError(TechniqueError):
    """Two techniques, or a technique and a Trainer setting, claim the same thing."""


class CheckpointError(UserError, RuntimeError):
    """A checkpoint doesn't belong to this run, or can't be read."""


class DataError(UserError, OSError):
    """A data set is missing, damaged or not what was asked for."""


class NoEffectWarning(UserWarning):
    """A technique matched nothing, or changed nothing."""


def one_line(error: object) -> str:
    """Return a message on one line.

    Example:
        >>> one_line(ValueError("two" + chr(10) + "   lines"))
        'two lines'
    """
    return " ".join(str(error).split())
