"""Networks that torch compiles in place."""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torchmetrics import Metric

from lightning_dlopt.core.checks import check_flag, check_text
from lightning_dlopt.core.errors import ArgumentError, one_line
from lightning_dlopt.core.loss_technique import is_compiled
from lightning_dlopt.core.named_modules import listing, select_modules
from lightning_dlopt.core.parameters import check_patterns
from lightning_dlopt.structure.after_surgery import AfterSurgery
from lightning_dlopt.structure.surgery import has_parameters

#: How often torch compiles one function, by default, before it runs it as it is.
_LIMIT = 8


def networks(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the outermost parts with parameters that can be called, by name.

    Losses without parameters and metrics are none, and in lists and dicts of parts their items
    are looked at.

    Example:
        >>> class Pair(nn.Module):
        ...     def __init__(self) -> None:
        ...         super().__init__()
        ...         self.blocks = nn.ModuleList([nn.Linear(2, 2), nn.ReLU()])
        ...         self.loss = nn.CrossEntropyLoss()
        >>> [name for name, _ in networks(Pair())]
        ['blocks.0']
    """
    return [
        (name, part)
        for child in module.named_children()
        for name, part in _callable_parts(*child)
        if has_parameters(part) and not isinstance(part, Metric)
    ]


def _callable_parts(name: str, part: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the part, or if it only holds others, those."""
    if type(part).forward is not nn.Module.forward:
        return [(name, part)]
    return [
        found
        for below, child in part.named_children()
        for found in _callable_parts(f"{name}.{below}", child)
    ]


def outermost(parts: Sequence[tuple[str, nn.Module]]) -> list[tuple[str, nn.Module]]:
    """Return the parts that lie in no other of them, each once.

    Example:
        >>> inner = nn.Linear(2, 2)
        >>> [name for name, _ in outermost([("net", nn.Sequential(inner)), ("net.0", inner)])]
        ['net']
    """
    inside = {id(below) for _, part in parts for below in part.modules() if below is not part}
    found: dict[int, tuple[str, nn.Module]] = {}
    for name, part in parts:
        if id(part) not in inside:
            found.setdefault(id(part), (name, part))
    return list(found.values())


def compile_parts(
    module: nn.Module, target: str | Sequence[str] = "all", **options: Any
) -> list[tuple[str, nn.Module]]:
    """Let torch compile parts of a module in place, and return them by name.

    They are compiled when they are first called. What is compiled already is left as it is.

    Args:
        module: the module that has the parts.
        target: ``"all"`` for its networks (:func:`networks`), or name patterns; of parts that
            match within each other the outermost is taken.
        **options: what ``torch.compile`` takes.

    Raises:
        ArgumentError: if ``target`` is none of these, or a pattern matches nothing.

    Example:
        >>> net = nn.ModuleDict({"body": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
        >>> [name for name, _ in compile_parts(net, ["b*"], backend="eager")]
        ['body']
    """
    check_patterns("compile_parts", "target", target, "all")
    if isinstance(target, str):
        chosen = networks(module)
    else:
        selected = select_modules(module, target)
        chosen = [part for entry in selected for part in _callable_parts(*entry)]
    parts = [(name, part) for name, part in outermost(chosen) if not _compiled_already(part)]
    # torch counts all modules as one function, and stops compiling after the limit without an error
    if "recompile_limit" in inspect.signature(torch.compile).parameters:
        options = {"recompile_limit": _LIMIT * len(parts), **options}
    for _, part in parts:
        part.compile(**options)
    return parts


def _compiled_already(part: nn.Module) -> bool:
    return part._compiled_call_impl is not None or hasattr(part, "_orig_mod")


class Compile(AfterSurgery):
    """Lets ``torch.compile`` make kernels for the networks of a module.

    What changes in training: the selected parts run compiled from their first call on, in
    training, validation, testing and prediction, and their names, parameters and checkpoints stay
    as they are. The first batches take longer, up to minutes. By default these are the module's
    own networks, and ``training_step`` itself is not compiled, so logging, metrics, and techniques
    that change a batch or catch a loss go on working. It comes after all techniques that change
    the model, wherever they are listed. Results differ from those of eager execution by rounding,
    and dropout draws other numbers; with ``backend="eager"`` they are the same to the last bit.

    Inputs of new sizes compile anew, and torch goes on without compiling after a number of times,
    with a warning of its own. It is worth its time for long runs of networks with many small
    operations. Techniques that change single layers break the compiled graph there. With
    ``mode="reduce-overhead"``, those that run a network twice in a step don't work.

    After training, and after an exception, the parts run as before. What torch has compiled for
    them it keeps for the next training in the same process.

    Source: J. Ansel and others, PyTorch 2: Faster Machine Learning Through Dynamic Python Bytecode
    Transformation and Graph Compilation (ASPLOS 2024).

    When:
        Long runs of networks with many small operations, on inputs of one size or few.

    When not:
        Short runs, which end before the compiling has paid; inputs whose sizes keep changing; while
        searching for a mistake.

    Args:
        target: ``"all"`` for the module's outermost parts that have parameters and can be called,
            or name patterns of parts, such as ``["encoder.layers.*"]``: equal blocks share what
            is compiled for the first, which is faster to compile than the whole.
        mode: one of the backend's modes, such as ``"max-autotune"``.
        dynamic: whether sizes are left open; None leaves them open once they have changed.
        backend: which compiler, by torch's name for it. The default needs a C++ compiler on the
            CPU.
        fullgraph: whether a part that can't be compiled as one graph is an error.

    Raises:
        ArgumentError, ArgumentTypeError: if an argument has a bad value.
        TechniqueError: if a pattern matches nothing, if the module is compiled as a whole, or, in
            the first batch, if a part can't be compiled; its cause is the compiler's own error.

    Warns:
        NoEffectWarning: if there is nothing to compile, or what was compiled isn't called.

    A checkpoint keeps the arguments only.

    Example:
        >>> Compile(target=["encoder.layers.*"])
        Compile(target=['encoder.layers.*'])
    """

    _parts: Sequence[tuple[str, nn.Module]] = ()
    _called = False

    def __init__(
        self,
        target: str | Sequence[str] = "all",
        mode: str | None = None,
        dynamic: bool | None = None,
        backend: str = "inductor",
        fullgraph: bool = False,
    ) -> None:
        self.target = check_patterns(self, "target", target, "all")
        self.backend = check_text(self, "backend", backend)
        self.mode = None if mode is None else check_text(self, "mode", mode)
        self.dynamic = None if dynamic is None else check_flag(self, "dynamic", dynamic)
        self.fullgraph = check_flag(self, "fullgraph", fullgraph)
        try:  # torch knows which there are
            torch.compile(lambda: None, backend=backend, mode=mode)
        except Exception as error:
            raise ArgumentError(
                f"Compile: backend={backend!r}, mode={mode!r}: {one_line(error)}"
            ) from error

    def finish(self, trainer: Trainer, module: LightningModule) -> None:
        """Compile the parts that are there now."""
        if is_compiled(module.training_step) or _compiled_already(module):
            raise self.refuse(
                f"{type(module).__name__} is compiled as a whole already: train it without this "
                "technique, or pass it to the Trainer as it is"
            )
        self._release()
        options = {name: getattr(self, name) for name in ("mode", "dynamic", "backend")}
        try:
            parts = compile_parts(module, self.target, fullgraph=self.fullgraph, **options)
        except ArgumentError as error:
            raise self.refuse(str(error)) from error
        self._parts = parts
        for name, part in parts:
            call: Any = part._compiled_call_impl
            part._compiled_call_impl = self._noting(self._explaining(name, call))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """See to it that the backward pass explains itself, too: it is compiled when it comes."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self.patch(pl_module, "backward", partial(self._explaining, "the backward pass"))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell if there was nothing to do."""
        self._called = False
        if not self._parts:
            self.warn_no_effect(
                "among its target is no part that has parameters and isn't compiled already"
            )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell if the parts have another way of being used than being called."""
        if self._parts and not self._called:
            self._called = True
            self.warn_no_effect(
                "in its first epoch none of the parts was called that are compiled: "
                + listing([name for name, _ in self._parts])
            )

    def let_go(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the parts run as before."""
        self._release()

    def _release(self) -> None:
        for _, part in self._parts:
            vars(part).pop("_compiled_call_impl", None)
        self._parts = ()

    def _noting(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **kwargs: Any) -> Any:
            self._called = True
            return call(*args, **kwargs)

        return noted

    def _explaining(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that says what to do if the compiler fails."""

        def explained(*args: Any, **kwargs: Any) -> Any:
            try:
                return call(*args, **kwargs)
            except Exception as error:
                if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                    anyway = "say fullgraph=False, " if self.fullgraph else ""
                    raise self.refuse(
                        f"{name} can't be compiled ({type(error).__name__}: {_beginning(error)}). "
                        "Train without this technique to see whether the module runs at all; if it "
                        f"does, name other parts in target, {anyway}or take another backend, such "
                        'as "aot_eager", which needs no C++ compiler'
                    ) from error
                raise

        return explained

    def __getstate__(self) -> dict[str, Any]:
        run = {"_parts", "_called"}
        return {name: value for name, value in super().__getstate__().items() if name not in run}


def _beginning(error: Exception) -> str:
    # the first line may say no more than whose error it is
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]).rstrip(".")
