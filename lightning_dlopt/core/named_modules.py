"""Which of a module's parts a technique works on."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from lightning_dlopt.core.errors import ArgumentError
from lightning_dlopt.core.parameters import plain_name

_SHOWN = 40


def listing(names: Sequence[str]) -> str:
    """Return names for a message: all of them, or the first ones of very many.

    Example:
        >>> listing(["a", "b"])
        'a, b'
    """
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def named_parts(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return every part below ``module``, in the order of registration, each once.

    Names are without what ``torch.compile`` or FSDP put into them.
    """
    return [(plain_name(name), part) for name, part in module.named_modules() if plain_name(name)]


def select_modules(module: nn.Module, patterns: Sequence[str]) -> list[tuple[str, nn.Module]]:
    """Return the parts whose names match one of the patterns, in the order of registration.

    Args:
        module: the module to look in. A part that it holds twice is listed once, under its first
            name, but found under any of them.
        patterns: ``fnmatch`` patterns, case-sensitive.

    Raises:
        ArgumentError: if a pattern matches no part.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU()))
        >>> [name for name, _ in select_modules(net, ["1.*"])]
        ['1.0']
    """
    named = [
        (plain_name(name), part)
        for name, part in module.named_modules(remove_duplicate=False)
        if plain_name(name)
    ]
    wanted = set()
    for pattern in patterns:
        found = [id(part) for name, part in named if fnmatchcase(name, pattern)]
        if not found:
            names = listing([name for name, _ in named]) or "no parts"
            raise ArgumentError(f"no module's name matches {pattern!r}; there are {names}")
        wanted.update(found)
    return [(name, part) for name, part in named_parts(module) if id(part) in wanted]


def sparse_embeddings(module: nn.Module) -> list[tuple[str, nn.Embedding | nn.EmbeddingBag]]:
    """Return the embeddings whose weights get sparse gradients, with their names.

    Example:
        >>> net = nn.Sequential(nn.Embedding(3, 2), nn.Embedding(3, 2, sparse=True))
        >>> [name for name, _ in sparse_embeddings(net)]
        ['1']
    """
    return [
        (name, part)
        for name, part in module.named_modules()
        if isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.sparse
    ]
