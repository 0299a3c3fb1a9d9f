"""What a training step calls its network with, found by an extra pass that leaves no trace."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.compile import to_uncompiled
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torchmetrics import Metric

from lightning_dlopt.core.batch_copy import copied
from lightning_dlopt.core.errors import TechniqueError
from lightning_dlopt.core.extra_pass import extra_pass
from lightning_dlopt.core.module_state import ModuleState
from lightning_dlopt.core.patching import Patches, unpatched
from lightning_dlopt.structure.channels.eager import eager

#: So many calls of one part with inputs of the same shapes are recorded.
_MOST = 16


@dataclass(frozen=True)
class Call:
    """A part of a module, by name, and what it was called with; its tensors are copies."""

    part: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def record_calls(
    trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
) -> list[Call]:
    """Return the calls of outermost parts in the module's own training step on a batch.

    That is the module itself where the step calls ``self(x)``, and otherwise those of its parts
    that it calls: not the parts within these. A part that is called with inputs of the same
    shapes again and again comes no more than 16 times; metrics don't come.
    """
    calls: dict[str, list[Call]] = {}
    with extra_step(trainer, pl_module) as step, _recording(pl_module, calls):
        step(batch, batch_idx)
    return [call for alike in calls.values() for call in alike]


def run_calls(
    calls: list[Call], context: Callable[[], AbstractContextManager[None]] = nullcontext
) -> Callable[[nn.Module], list[Tensor]]:
    """Return a function that does the calls with a copy of the module and returns all outputs."""

    def run(module: nn.Module) -> list[Tensor]:
        outputs: list[Tensor] = []
        # what Lightning has put into a compiled module would run the original, not the copy
        if isinstance(module, LightningModule):
            with suppress(ValueError):  # it isn't compiled
                to_uncompiled(module)
        with context(), eager():
            for call in calls:
                args, kwargs = copied((call.args, call.kwargs), tensors=True)
                output = module.get_submodule(call.part)(*args, **kwargs)
                apply_to_collection(output, Tensor, outputs.append, allow_frozen=True)
        return outputs

    return run


@contextmanager
def extra_step(trainer: Trainer, pl_module: LightningModule) -> Iterator[Callable[..., Any]]:
    """Give the module's own training step, without any technique around it, for an extra pass.

    What the step does to the module is undone when the block ends; under manual optimization it
    steps no optimizer.
    """
    names = ["batch_idx"] if takes_index(pl_module) else []

    def step(batch: Any, batch_idx: int) -> Any:
        indices = [batch_idx] * len(names)
        with trainer.precision_plugin.train_step_context():
            return unpatched(pl_module, "training_step")(copied(batch, tensors=True), *indices)

    gradients = [(parameter, parameter.grad) for parameter in pl_module.parameters()]
    state = ModuleState(pl_module)
    try:
        with extra_pass(pl_module), _without_steps(pl_module), eager():
            yield step
    finally:
        state.restore_attributes()
        state.restore_contents()
        for parameter, gradient in gradients:
            parameter.grad = gradient
        torch.clear_autocast_cache()


def takes_index(pl_module: LightningModule) -> bool:
    """Return whether the training step takes the number of the batch."""
    return is_param_in_hook_signature(pl_module.training_step, "batch_idx", min_args=2)


@contextmanager
def _recording(module: nn.Module, calls: dict[str, list[Call]]) -> Iterator[None]:
    depth = 0

    def enter(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            nonlocal depth
            depth += 1
            if depth == 1:
                copies = apply_to_collection((args, kwargs), Tensor, _copy, allow_frozen=True)
                alike = calls.setdefault(f"{name}: {_shapes(copies)}", [])
                if len(alike) < _MOST:
                    alike.append(Call(name, *copies))

        return hook

    def leave(*_: Any) -> None:
        nonlocal depth
        depth -= 1

    handles = []
    for name, part in module.named_modules():
        if not isinstance(part, Metric):
            handles.append(part.register_forward_pre_hook(enter(name), with_kwargs=True))
            handles.append(part.register_forward_hook(leave, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()


def _shapes(value: Any) -> str:
    def shape(tensor: Tensor) -> str:
        return f"{tuple(tensor.shape)} {tensor.dtype}"

    return str(apply_to_collection(value, Tensor, shape, allow_frozen=True))


class _Idle:
    """Stands in for an optimizer or a scheduler that mustn't move."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def step(self, closure: Any = None, *args: Any, **kwargs: Any) -> Any:
        return closure() if callable(closure) else None

    def zero_grad(self, *args: Any, **kwargs: Any) -> None:
        """Leave the gradients."""


@contextmanager
def _without_steps(pl_module: LightningModule) -> Iterator[None]:
    """Let a manual training step pass without a backward pass and without steps."""

    def refuse(optimizer: Any, *_: Any) -> None:
        raise TechniqueError(
            f"{type(pl_module).__name__} steps a {type(optimizer).__name__} in training_step that "
            "it didn't get from self.optimizers(): get it from there"
        )

    def idle(method: Callable[..., Any]) -> Callable[..., Any]:
        def stand_ins(*args: Any, **kwargs: Any) -> Any:
            real = method(*args, **kwargs)
            if isinstance(real, list):
                return [_Idle(one) for one in real]
            return None if real is None else _Idle(real)

        return stand_ins

    def nothing(_: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *_, **__: None

    patches, handle = Patches(), register_optimizer_step_pre_hook(refuse)
    try:
        if not pl_module.automatic_optimization:
            for name in ("optimizers", "lr_schedulers"):
                patches.patch(pl_module, name, idle)
            for name in ("manual_backward", "toggle_optimizer", "untoggle_optimizer"):
                patches.patch(pl_module, name, nothing)
            patches.patch(pl_module, "clip_gradients", nothing)
        yield
    finally:
        patches.undo()
        handle.remove()
