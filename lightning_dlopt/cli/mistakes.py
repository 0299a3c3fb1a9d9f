"""Which errors are a user's mistake, and how they read."""

import argparse
import difflib
import re
from typing import NoReturn

from lightning_dlopt.cli.other_package import other_package_message

#: Packages that recipes need and that only an extra, of the same name, installs.
_EXTRAS = ("schedulefree", "pytorch_optimizer")


#: How the parser complains that a value isn't None, which nobody has asked for.
_NOT_NONE = re.compile(r"Expected a <class 'NoneType'>")


class UsageError(Exception):
    """The command line or a configuration file says something that can't be done."""


class Parser(argparse.ArgumentParser):
    """Complains by a UsageError, so that a mistake is one line here as everywhere."""

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the command line."""
        raise UsageError(f"{self.prog}: {message}")


def user_mistakes() -> tuple[type[BaseException], ...]:
    """Return the exceptions whose message is for the user."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    from lightning_dlopt.core.errors import UserError

    return UsageError, UserError, MisconfigurationException, FileNotFoundError


def cause(error: BaseException) -> BaseException:
    """Return the error of this package that led to ``error``, or ``error`` itself."""
    from lightning_dlopt.core.errors import UserError

    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, UserError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return error


def parse_message(error: BaseException) -> str:
    """Return the message of a configuration that doesn't parse, without the parser's own types.

    The parser tells of every type it tried; what a user needs is the key, the value and what was
    wrong with it.
    """
    from lightning_dlopt.core.errors import one_line

    text = one_line(cause(error))
    for extra in _EXTRAS:
        if re.search(rf"No module named '{extra}'|import of {extra} halted", text):
            return f"this needs the package {extra}: pip install 'lightning-dlopt[{extra}]'"
    other = other_package_message(text)
    if other:
        return other
    twice = re.search(r"more than one stateful callback of type `(\w+)`", text)
    if twice:
        return f"there are two {twice[1]} with the same arguments among the callbacks: keep one"
    unknown = re.search(r"Expected a dot import path string: (\S+)", text)
    if unknown:
        import lightning_dlopt

        key = re.search(r'Parser key "([^"]+)"', text)
        where = f"{key[1]}: " if key else ""
        if unknown[1] in lightning_dlopt.__all__:
            from torch.optim import Optimizer

            found = getattr(lightning_dlopt, unknown[1])
            if isinstance(found, type) and issubclass(found, Optimizer):
                return f"{where}{unknown[1]} is an optimizer, no callback: give it to UseOptimizer"
            return f"{where}{unknown[1]} can't be used here"
        close = difflib.get_close_matches(unknown[1], lightning_dlopt.__all__, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        return (
            f"{where}no class {unknown[1]!r} is known; {hint}Give a short name from `dlopt list` "
            "or a full import path"
        )
    # of a union, the complaints of the member that was meant stand in a list of their own
    union = re.search(r"^(.*?)Does not validate against any of the Union.*?Errors: - (.*)$", text)
    if union:
        complaints, _, value = union[2].partition("Given value: ")
        parts = [part.split("Given value type")[0].strip() for part in complaints.split(" - ")]
        parts = [part for part in dict.fromkeys(parts) if part and not _NOT_NONE.search(part)]
        useful = [part for part in parts if "NoneType" not in part] or parts
        nested = re.search(r"NestedArg\(key='[^']*', val=(.*)\)", value)
        value = nested[1] if nested else value
        got = f" (got {value})" if value and len(value) < 40 else ""
        return union[1] + "; or ".join(useful or [text]) + got
    return text
