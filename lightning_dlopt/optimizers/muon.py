"""Muon: momentum whose steps for matrices are made orthogonal; AdamW for all else."""

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from lightning_dlopt.core.checks import (
    check_choice,
    check_flag,
    check_integer,
    check_number,
)
from lightning_dlopt.core.errors import ArgumentError, ArgumentTypeError

Parameters: TypeAlias = Iterable[Any]

SCALES = ("original", "match_rms_adamw")

#: Jordan's coefficients: the steepest rise at 0 for which the iteration stays near 1.
_LINEAR, _CUBIC, _QUINTIC = 3.4445, -4.7750, 2.0315


def orthogonalize(matrix: Tensor, steps: int = 5) -> Tensor:
    """Return roughly the orthogonal matrix nearest to ``matrix``, by Newton-Schulz iteration.

    With the singular value decomposition ``matrix = U S V'`` the result is ``U S' V'``, where the
    singular values S' lie between about 0.7 and 1.2 after five steps, if those of S were at least
    0.003 times the norm of all of them. Computed in bfloat16.

    Source: K. Jordan and others, Muon: An optimizer for hidden layers in neural networks, 2024,
    https://kellerjordan.github.io/posts/muon/.

    Args:
        matrix: of two dimensions.
        steps: iterations, at least 1.

    Returns:
        A bfloat16 tensor of the same shape.

    Example:
        >>> result = orthogonalize(torch.diag(torch.tensor([3.0, 2.0])))
        >>> bool((result.float() - torch.eye(2)).abs().max() < 0.4)
        True
    """
    tall = matrix.size(0) > matrix.size(1)
    result = matrix.bfloat16().T if tall else matrix.bfloat16()
    # no singular value is larger than the norm of all of them
    result = result / result.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram = result @ result.T
        polynomial = torch.addmm(gram, gram, gram, beta=_CUBIC, alpha=_QUINTIC)
        result = torch.addmm(result, polynomial, result, beta=_LINEAR)
    return result.T if tall else result


def step_scale(shape: tuple[int, int], scale: str) -> float:
    """Return what an orthogonal step for a matrix of (rows, columns) is multiplied by.

    Example:
        >>> step_scale((400, 100), "original"), step_scale((400, 100), "match_rms_adamw")
        (2.0, 4.0)
    """
    rows, columns = shape
    if scale == "original":
        return math.sqrt(max(1, rows / columns))
    return 0.2 * math.sqrt(max(rows, columns))


class Muon(Optimizer):
    """Muon for hidden matrices and convolution kernels, AdamW for the rest, in one optimizer.

    For a matrix with gradient g: ``m = momentum * m + (1 - momentum) * g``, then with ``nesterov``
    ``u = (1 - momentum) * g + momentum * m``, else ``u = m``; the step is
    ``w -= lr * weight_decay * w``, ``w -= lr * scale * orthogonalize(u)``. A kernel of more
    dimensions is taken as the matrix ``(out, in * height * width)``. All else takes AdamW's steps
    with ``adamw_lr``, ``adamw_betas`` and ``adamw_eps``. Being one optimizer, it works with
    gradient accumulation, clipping, one schedule and automatic optimization.

    Sources: K. Jordan and others, Muon: An optimizer for hidden layers in neural networks, 2024,
    https://kellerjordan.github.io/posts/muon/; J. Liu and others, Muon is Scalable for LLM
    Training, 2025, arXiv:2502.16982. torch's own ``torch.optim.Muon`` takes parameters of two
    dimensions only; for those the steps are the same.

    Which parameters are hidden matrices is told by ``use_muon`` in their param group:
    :class:`UseOptimizer` sets it from the module (every tensor of two or more dimensions that is no
    bias, norm, gain, embedding, and not in the last layer that is trained). In a group that doesn't
    say, every tensor of two or more dimensions is one; embeddings and the last layer should then
    be given in a group with ``"use_muon": False``.

    When:
        Most parameters are in hidden matrices or kernels, as in transformers and convolutional
        networks, and fewer steps are worth dearer ones.

    When not:
        Small layers or mostly embeddings; sharded weights; fine-tuning what AdamW has pretrained,
        where the second source found no gain.

    Args:
        params: parameters, or param groups, which may hold ``use_muon`` and any argument below.
        lr: the rate for matrices, at least 0. Its size depends on ``scale``.
        momentum: in [0, 1).
        nesterov: whether the step looks ahead by the momentum.
        ns_steps: iterations that make a step orthogonal, 1 to 20.
        weight_decay: decoupled, as AdamW's, for both kinds of parameters, at least 0.
        scale: ``"original"`` multiplies a step by ``sqrt(max(1, rows / columns))`` as in Jordan's
            post (rates about 0.02); ``"match_rms_adamw"`` by ``0.2 * sqrt(max(rows, columns))``,
            which gives a step the size of AdamW's, so that AdamW's rate and decay can be kept.
        adamw_lr: AdamW's rate, at least 0. A schedule multiplies both rates alike.
        adamw_betas: AdamW's two averaging factors, each in [0, 1).
        adamw_eps: AdamW's epsilon, at least 0.

    The state is a momentum buffer for each matrix, and AdamW's for the rest.

    Raises:
        ArgumentError: if a number is out of its range; if ``use_muon`` is set for a tensor of
            fewer than two dimensions; or if a matrix is sharded over processes (FSDP2, tensor
            parallelism), since only the whole matrix can be made orthogonal.
        ArgumentTypeError: if an argument has the wrong type.

    Example:
        >>> layers = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 2))
        >>> optimizer = Muon(layers.parameters(), lr=0.02)
        >>> [(len(g["params"]), g["use_muon"], g["lr"]) for g in optimizer.param_groups]
        [(2, True, 0.02), (2, False, 0.0003)]
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 0.02,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        weight_decay: float = 0.0,
        scale: Literal["original", "match_rms_adamw"] = "original",
        adamw_lr: float = 3e-4,
        adamw_betas: tuple[float, float] = (0.9, 0.95),
        adamw_eps: float = 1e-8,
    ) -> None:
        if not isinstance(adamw_betas, tuple | list) or len(adamw_betas) != 2:
            raise ArgumentTypeError(f"Muon: adamw_betas={adamw_betas!r} must be two numbers")
        defaults = {
            "lr": check_number("Muon", "lr", lr, "[0, inf)"),
            "momentum": check_number("Muon", "momentum", momentum, "[0, 1)"),
            "nesterov": check_flag("Muon", "nesterov", nesterov),
            "ns_steps": check_integer("Muon", "ns_steps", ns_steps, "[1, 20]"),
            "weight_decay": check_number("Muon", "weight_decay", weight_decay, "[0, inf)"),
            "scale": check_choice("Muon", "scale", scale, SCALES),
            "adamw_lr": check_number("Muon", "adamw_lr", adamw_lr, "[0, inf)"),
            "adamw_betas": tuple(
                check_number("Muon", "adamw_betas", beta, "[0, 1)") for beta in adamw_betas
            ),
            "adamw_eps": check_number("Muon", "adamw_eps", adamw_eps, "[0, inf)"),
            "use_muon": True,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters; a group that doesn't say ``use_muon`` is parted by dimensions."""
        params = param_group["params"]
        params = [params] if isinstance(params, Tensor) else list(params)
        if "use_muon" in param_group:
            self._add(param_group, params, param_group["use_muon"])
            return
        for use_muon in (True, False):
            some = [p for p in params if (_tensor(p).dim() >= 2) == use_muon]
            if some:
                self._add(param_group, some, use_muon)
        if not params:
            super().add_param_group({**param_group, "params": []})

    def _add(self, group: dict[str, Any], params: list[Any], use_muon: bool) -> None:
        for parameter in map(_tensor, params) if use_muon else ():
            if parameter.dim() < 2:
                raise ArgumentError(
                    f"Muon: use_muon=True for a parameter of shape {tuple(parameter.shape)}: "
                    "only matrices and kernels have orthogonal steps"
                )
            if isinstance(parameter, DTensor):
                raise ArgumentError(
                    f"Muon: a matrix of shape {tuple(parameter.shape)} is sharded, and only a "
                    "whole one can be made orthogonal: train with DDP, or use another optimizer"
                )
        rate = {} if use_muon else {"lr": group.get("adamw_lr", self.defaults["adamw_lr"])}
        super().add_param_group({**rate, **group, "params": params, "use_muon": use_muon})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; parameters without a gradient stay as they are.

        Raises:
            RuntimeError: if a gradient is sparse.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if any(p.grad.is_sparse for p in parameters):
                raise RuntimeError("Muon takes no sparse gradients: use an embedding without them")
            if group["use_muon"]:
                for parameter in parameters:
                    self._orthogonal_step(parameter, group)
            else:
                self._adamw_step(parameters, group)
        return loss

    def _orthogonal_step(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        average = state["momentum_buffer"]
        average.lerp_(gradient, 1 - group["momentum"])
        ahead = gradient.lerp(average, group["momentum"]) if group["nesterov"] else average
        step = orthogonalize(ahead.flatten(1), group["ns_steps"])
        rate = float(group["lr"])
        scale = step_scale((step.size(0), step.size(1)), group["scale"])
        parameter.mul_(1 - rate * group["weight_decay"])
        parameter.add_(step.reshape(parameter.shape), alpha=-rate * scale)

    def _adamw_step(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
        states = [self.state[parameter] for parameter in parameters]
        adamw(
            parameters,
            [parameter.grad for parameter in parameters],  # type: ignore[misc]
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            amsgrad=False,
            beta1=group["adamw_betas"][0],
            beta2=group["adamw_betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["adamw_eps"],
            maximize=False,
        )


def _tensor(entry: Any) -> Tensor:
    # torch takes (name, parameter) pairs, too
    tensor: Tensor = entry[1] if isinstance(entry, tuple) else entry
    return tensor
