"""Optimizers given as callables: what they are called, and whether torch can fuse them."""

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.optim import Optimizer

from lightning_dlopt.core.plain import plain

#: Builds an optimizer from parameters or param groups, as an optimizer's class does.
MakesOptimizer: TypeAlias = Callable[[Iterable[Any]], Optimizer]

#: What a param group holds besides options: its parameters, and which implementation works on them.
_NOT_OPTIONS = {"params", "param_names", "fused", "foreach", "capturable", "differentiable"}


def optimizer_class(make: Any) -> type[Optimizer] | None:
    """Return the class that ``make`` builds if it is one, or a ``partial`` of one."""
    parts = (make.func, *make.args) if isinstance(make, functools.partial) else (make,)
    # what the parser of a configuration file gives is a partial of its own function and the class
    classes = [p for p in parts if inspect.isclass(p) and issubclass(p, Optimizer)]
    return classes[0] if classes else None


def description(make: Any) -> Any:
    """Return ``make`` as plain data, the same whether it comes from YAML or from Python.

    Example:
        >>> description(functools.partial(torch.optim.SGD, lr=0.1, momentum=0.0))
        {'class_path': 'torch.optim.sgd.SGD', 'init_args': {'lr': 0.1}}
    """
    cls = optimizer_class(make)
    if cls is None:
        return plain(make)
    options = dict(make.keywords) if isinstance(make, functools.partial) else {}
    signature = inspect.signature(cls).parameters
    # an argument at its default says nothing, and YAML writes every one of them out
    arguments = {
        name: plain(value)
        for name, value in sorted(options.items())
        if name not in signature or plain(value) != plain(signature[name].default)
    }
    return {"class_path": plain(cls), "init_args": arguments}


def group_options(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Return each param group's options as plain data, without how they are computed.

    Example:
        >>> optimizer = torch.optim.SGD([torch.zeros(2)], lr=torch.tensor(0.5))
        >>> group_options(optimizer)[0]["lr"]
        0.5
    """
    return [
        {
            name: value.tolist() if isinstance(value, torch.Tensor) else plain(value)
            for name, value in group.items()
            if name not in _NOT_OPTIONS
        }
        for group in optimizer.param_groups
    ]


def differing_option(
    saved: list[dict[str, Any]] | None, now: list[dict[str, Any]] | None
) -> str | None:
    """Return in words the first difference between two optimizers' options, if both are known."""
    if saved is None or now is None:
        return None
    if len(saved) != len(now):
        return f"{len(saved)} param groups, and now there are {len(now)}"
    for index, (before, after) in enumerate(zip(saved, now, strict=True)):
        for name in sorted(before.keys() & after.keys()):
            if before[name] != after[name]:
                where = f" in param group {index}" if len(now) > 1 else ""
                return f"{name}={before[name]!r}{where}, and now it is {after[name]!r}"
    return None


def sample(make: MakesOptimizer) -> Optimizer:
    """Return an optimizer over a parameter of its own, to see what it is like."""
    return make([nn.Parameter(torch.zeros(1, 1))])


def can_fuse(make: MakesOptimizer, parameters: Sequence[nn.Parameter]) -> bool:
    """Return whether torch has a fused form of the optimizer for these parameters.

    It must be one of torch's own, with neither ``fused`` nor ``foreach`` chosen by the user. The
    fused form is asked for in the param groups and not in the constructor: an optimizer that is
    fused by its constructor takes the loss scale of 16-bit training itself, which Lightning
    answers by refusing to clip, and by handing scaled gradients to callbacks.
    """
    cls = optimizer_class(make)
    if cls is None or not cls.__module__.startswith("torch.optim."):
        return False
    if "fused" not in inspect.signature(cls).parameters:
        return False
    chosen = sample(make).defaults
    if chosen.get("fused") is not None or chosen.get("foreach") is not None:
        return False
    if chosen.get("momentum") and chosen.get("dampening"):
        return False  # a first gradient is not dampened, which no buffer of zeros can stand for
    if any(type(parameter) is not nn.Parameter for parameter in parameters):
        return False  # sharded, or not there yet
    kinds = {(p.device, p.dtype) for p in parameters}
    return all(_steps_fused(make, device, dtype) for device, dtype in kinds)


def fill_momentum_buffers(optimizer: Optimizer, *_: Any) -> None:
    """Give each parameter of a fused SGD its momentum buffer, as a hook before its steps.

    torch's fused form fails if some parameters have a buffer and others don't, as after a first
    gradient that comes later than the others'. A buffer of zeros is the same as none: it makes
    ``momentum * 0 + gradient`` of the first gradient.
    """
    for group in optimizer.param_groups:
        if not group["fused"] or not group["momentum"] or group["dampening"]:
            continue
        for parameter in group["params"]:
            # what the closure of this step gives a gradient isn't known yet
            if parameter.requires_grad or parameter.grad is not None:
                state = optimizer.state[parameter]
                if state.get("momentum_buffer") is None:
                    state["momentum_buffer"] = torch.zeros_like(parameter)


def _steps_fused(make: MakesOptimizer, device: torch.device, dtype: torch.dtype) -> bool:
    try:
        probe = nn.Parameter(torch.zeros(1, 1, device=device, dtype=dtype))
        probe.grad = torch.zeros_like(probe)
        make([{"params": [probe], "fused": True}]).step()
    except (RuntimeError, TypeError, ValueError):
        return False
    return True
