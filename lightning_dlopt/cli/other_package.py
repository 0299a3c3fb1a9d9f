"""Classes that derive from the package ``pytorch_lightning`` instead of ``lightning.pytorch``."""

import re
import sys

_OTHER = "pytorch_lightning"


def other_package_message(text: str) -> str | None:
    """Return what to do about a class of the other package, if that is why it was refused.

    The two packages have the same classes twice, so that ``isinstance`` tells them apart although
    they look alike.

    Args:
        text: what the parser says, in which the class's import path stands.
    """
    refused = re.search(r"does not correspond to a subclass of (\w+)", text)
    if refused is None:
        return None
    for path in re.findall(r"[A-Za-z_]\w*(?:\.\w+)+", text):
        module, _, name = path.rpartition(".")
        # the parser has imported it; nothing is imported for a message
        found = getattr(sys.modules.get(module), name, None)
        bases = found.__mro__ if isinstance(found, type) else ()
        for base in bases:
            if base.__module__.partition(".")[0] == _OTHER:
                key = re.search(r'Parser key "([^"]+)"', text)
                where = f"{key[1]}: " if key else ""
                return (
                    f"{where}{path} derives from {_OTHER}.{base.__name__}, the class of another "
                    f"package than lightning.pytorch.{refused[1]}, even if both have one version; "
                    f"write `from lightning.pytorch import` instead of `from {_OTHER} import` "
                    f"where {name} is defined, or take a release of its package that does"
                )
    return None
