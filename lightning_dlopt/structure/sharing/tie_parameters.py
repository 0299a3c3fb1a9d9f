"""Several names of a module with one Parameter."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.nn.parameter import is_lazy

from lightning_dlopt.core.checks import owner_name
from lightning_dlopt.core.coverage import in_optimizers
from lightning_dlopt.core.errors import ArgumentError, ArgumentTypeError, CheckpointError
from lightning_dlopt.core.named_modules import listing
from lightning_dlopt.core.parameters import plain_name
from lightning_dlopt.structure.plan import find_entry
from lightning_dlopt.structure.surgery import Surgery

#: Which name takes the Parameter of which.
Pairs = Sequence[tuple[str, str]]


def check_pairs(owner: object, pairs: Any) -> list[tuple[str, str]]:
    """Return ``pairs`` if they are pairs of two different names, or raise."""
    problem = f"{owner_name(owner)}: pairs={pairs!r} must be pairs of two parameters' names"
    if not isinstance(pairs, Sequence) or isinstance(pairs, str):
        raise ArgumentTypeError(problem)
    for pair in pairs:
        if not isinstance(pair, Sequence) or isinstance(pair, str):
            raise ArgumentTypeError(problem)
        if not all(isinstance(name, str) for name in pair):
            raise ArgumentTypeError(problem)
    if not pairs or any(len(set(pair)) != 2 or len(pair) != 2 for pair in pairs):
        raise ArgumentError(f"{problem}, which differ")
    return [(first, second) for first, second in pairs]


def parameter_places(module: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """Return the part that holds each parameter, and its name there, by each of its names.

    Example:
        >>> list(parameter_places(nn.Sequential(nn.Linear(2, 2))))
        ['0.weight', '0.bias']
    """
    return {
        plain_name(f"{prefix}.{name}".lstrip(".")): (part, name)
        for prefix, part in module.named_modules(remove_duplicate=False)
        for name, parameter in part._parameters.items()
        if parameter is not None
    }


def tie_parameters(module: nn.Module, pairs: Pairs) -> list[tuple[str, str]]:
    """Let the first name of each pair have the second's Parameter, in place.

    Whatever else has the first one's Parameter gets the second's, too. See
    :class:`TieParameters`. Make the optimizer afterwards.

    Args:
        module: the module that is changed.
        pairs: names of parameters as in ``named_parameters``.

    Returns:
        The pairs that weren't tied before.

    Raises:
        ArgumentError: if there is no parameter of a name, or two differ in shape, dtype, device or
            ``requires_grad``; the module is as it was.
        ArgumentTypeError: if ``pairs`` holds something else.

    Example:
        >>> net = nn.ModuleDict({"embedding": nn.Embedding(9, 4), "decoder": nn.Linear(4, 9)})
        >>> tie_parameters(net, [("decoder.weight", "embedding.weight")])
        [('decoder.weight', 'embedding.weight')]
        >>> net["decoder"].weight is net["embedding"].weight
        True
    """
    pairs = check_pairs("tie_parameters", pairs)
    places = parameter_places(module)
    for pair in pairs:
        for name in pair:
            if name not in places:
                raise ArgumentError(
                    f"there is no parameter {name!r}; the module has "
                    + (listing(list(places)) or "none")
                )
        _check_alike(*pair, *(_at(places[name]) for name in pair))
    tied = []
    for first, second in pairs:
        old, new = _at(places[first]), _at(places[second])
        if old is new:
            continue
        for part, name in places.values():
            if _at((part, name)) is old:
                setattr(part, name, new)  # recurrent layers note it in a list of theirs
        tied.append((first, second))
    return tied


def _at(place: tuple[nn.Module, str]) -> nn.Parameter:
    part, name = place
    parameter = part._parameters[name]
    assert parameter is not None
    return parameter


def _check_alike(first: str, second: str, left: nn.Parameter, right: nn.Parameter) -> None:
    if left is right:
        return
    for name, parameter in ((first, left), (second, right)):
        if is_lazy(parameter):
            raise ArgumentError(
                f"{name} belongs to a lazy module and has no shape yet: run a batch through the "
                "module before training"
            )
    for what, one, other in (
        ("shapes", tuple(left.shape), tuple(right.shape)),
        ("dtypes", left.dtype, right.dtype),
        ("devices", left.device, right.device),
        ("values of requires_grad", left.requires_grad, right.requires_grad),
    ):
        if one != other:
            raise ArgumentError(
                f"{first} and {second} can't be one Parameter: their {what} are {one} and {other}"
            )


class Sharing(Surgery):
    """What techniques share after which several names of the module have one Parameter."""

    @abstractmethod
    def share(self, module: nn.Module) -> list[tuple[str, str]]:
        """Change the module; return which parameter's name took the Parameter of which."""

    @property
    @abstractmethod
    def nothing_to_do(self) -> str:
        """Why there was nothing to change, if so."""

    def operate(self, module: nn.Module, generator: torch.Generator) -> dict[str, Any]:
        """Share, and return which pairs do."""
        pairs = self.share(module)
        if not pairs:
            self.warn_no_effect(self.nothing_to_do)
            return {}
        return {"pairs": [list(pair) for pair in pairs]}

    @classmethod
    def redo(cls, module: nn.Module, plan: dict[str, Any]) -> None:
        """Tie the plan's pairs; those that are tied stay so."""
        try:
            tie_parameters(module, plan["pairs"])
        except ArgumentError as error:
            raise CheckpointError(
                f"{cls.__name__}: the checkpoint's plan doesn't fit the module: {error}"
            ) from error

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse where they aren't one any more, or would be stepped twice."""
        super().on_fit_start(trainer, pl_module)
        entry = find_entry(pl_module, self.state_key)
        places = parameter_places(pl_module)
        held = [(type(one).__name__, in_optimizers([one])) for one in trainer.optimizers]
        for first, second in entry["plan"]["pairs"] if entry is not None else ():
            for name in (first, second):
                if name not in places:
                    raise self.refuse(
                        f"there is no {name} any more: a technique behind this one has put "
                        "something in its place. Put this one behind it, with the names that it "
                        "gives"
                    )
            parameter = _at(places[first])
            if parameter is not _at(places[second]):
                raise self.refuse(
                    f"{first} and {second} aren't one Parameter any more: something has replaced "
                    "one of them since. Under FSDP, let one group (one call of fully_shard) have "
                    "both"
                )
            steps = [name for name, parameters in held if id(parameter) in parameters]
            if len(steps) > 1:
                raise self.refuse(
                    f"{first} and {second} are one Parameter, which {' and '.join(steps)} would "
                    "both step: leave it out of all but one in configure_optimizers"
                )


class TieParameters(Sharing):
    """Gives parameters of equal shape one common value, such as an embedding and its decoder.

    What changes in training: before it starts, the first of each pair of names gets the second's
    Parameter. The model has fewer parameters, its gradient is the sum over all uses, optimizers
    hold and step it once, and what it starts from is the second's initial value: an embedding's is
    large for a linear layer (torch draws it from N(0, 1)), so a decoder that takes it may begin
    with a high loss unless the embedding is initialized smaller. Multiply-adds stay the same.

    Both names stay in the ``state_dict``. ``torch.save`` writes the common storage once, as do the
    Trainer's checkpoints on one device and under DDP. ``AsyncCheckpointIO`` clones every tensor,
    and FSDP2 gathers it for every name: they write it as often as it has names.

    From O. Press, L. Wolf, Using the Output Embedding to Improve Language Models (2016,
    arXiv:1608.05859) and H. Inan, K. Khosravi, R. Socher, Tying Word Vectors and Word Classifiers
    (2016, arXiv:1611.01462), who tie an output embedding to the input's; here any two parameters
    can be.

    When:
        Language models that read and write one vocabulary: the tied matrix is a large part of them.

    When not:
        To save time, for multiply-adds stay; where input and output need different vectors.

    Args:
        pairs: ``[(name, name of the one it takes), ...]``, names as in ``named_parameters``, such
            as ``[("decoder.weight", "embedding.weight")]``. What had the same Parameter before
            stays together.

    Raises:
        ArgumentError, ArgumentTypeError: if ``pairs`` aren't pairs of two different names.
        TechniqueError: if there is no such parameter; if two differ in shape, dtype, device or
            ``requires_grad``; if two optimizers would step one of them; if the optimizer was made
            before ``setup``; if something (a technique behind this one that replaces layers, FSDP
            with groups of their own) separates them.

    Warns:
        NoEffectWarning: if all pairs are one Parameter already.

    A checkpoint keeps the arguments and the plan: which pairs were tied.
    :func:`load_from_checkpoint` ties them again.

    Example:
        >>> TieParameters([("decoder.weight", "embedding.weight")])
        TieParameters(pairs=[['decoder.weight', 'embedding.weight']])
    """

    nothing_to_do = "each of its pairs is one Parameter already"

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self.pairs = check_pairs(self, pairs)

    def share(self, module: nn.Module) -> list[tuple[str, str]]:
        """Tie the pairs."""
        return tie_parameters(module, self.pairs)
