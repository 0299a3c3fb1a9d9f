"""A dropout rate that changes in the course of training."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lightning_dlopt.core.checks import check_number
from lightning_dlopt.core.errors import ArgumentError, UserError
from lightning_dlopt.core.layer_technique import LayerTechnique, noise
from lightning_dlopt.core.named_modules import listing, named_parts, select_modules
from lightning_dlopt.core.parameters import check_patterns
from lightning_dlopt.core.run_length import RunLength
from lightning_dlopt.core.spans import Span, parse_period, steps_within

#: Layers that do nothing but dropout: their draws are replaced.
DROPOUT = (
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)
#: Layers that have a dropout rate among other settings: only the rate can be set.
WITH_DROPOUT = (nn.MultiheadAttention, nn.RNNBase)

_SELU_FLOOR = -1.7580993408473766  # SELU's limit at minus infinity


def dropout_rate(step: int, total: float, start: float, end: float) -> float:
    """Return the rate at a step: from ``start`` to ``end`` over ``total`` steps, then ``end``.

    Example:
        >>> [dropout_rate(step, 4, 0.0, 0.2) for step in (0, 2, 4, 9)]
        [0.0, 0.1, 0.2, 0.2]
    """
    if step >= total:
        return end
    return start + (end - start) * step / total


def dropout(
    x: Tensor,
    p: float,
    generator: torch.Generator | None = None,
    dims: int | None = None,
    inplace: bool = False,
) -> Tensor:
    """Zero elements with probability ``p``, and scale the others by ``1 / (1 - p)``.

    Args:
        x: any floating-point tensor.
        p: in [0, 1]; 0 returns ``x`` itself and draws nothing.
        generator: on the device of ``x``; torch's global one by default.
        dims: how many of the first dimensions have draws of their own: 2 zeroes whole channels of
            ``(batch, channels, ...)``. By default all, each element alone.
        inplace: write the result into ``x``.

    Example:
        >>> dropout(torch.ones(5), 0.5, torch.Generator().manual_seed(0))
        tensor([0., 0., 2., 0., 0.])
    """
    p = check_number("dropout", "p", p, "[0, 1]")
    if p == 0:
        return x
    kept = noise(x, p, generator, dims)
    if p < 1:
        kept.div_(1 - p)
    return x.mul_(kept) if inplace else x * kept


def alpha_dropout(
    x: Tensor, p: float, generator: torch.Generator | None = None, dims: int | None = None
) -> Tensor:
    """Set elements to SELU's lower limit with probability ``p``, keeping mean and variance.

    Source: G. Klambauer, T. Unterthiner, A. Mayr, S. Hochreiter, Self-Normalizing Neural Networks,
    2017, arXiv:1706.02515. Arguments as for :func:`dropout`.

    Example:
        >>> alpha_dropout(torch.zeros(1000), 0.5).unique().numel()
        2
    """
    p = check_number("alpha_dropout", "p", p, "[0, 1]")
    if p == 0:
        return x
    if p == 1:
        return x * 0
    kept = noise(x, p, generator, dims)
    scale = 1 / math.sqrt((1 - p) * (1 + p * _SELU_FLOOR**2))
    shift = (1 - kept).mul_(_SELU_FLOOR * scale).sub_(_SELU_FLOOR * scale * p)
    return x * kept.mul_(scale) + shift


class ScheduledDropout(LayerTechnique):
    """Move the rate of the module's dropout layers from ``start`` to ``end``, then hold it.

    Rising from 0 it lets the network learn the easy things first (curriculum dropout); falling to
    0 it helps small networks that underfit (early dropout). Equal ends set one rate for all.

    Source: P. Morerio, J. Cavazza, R. Volpi, R. Vidal, V. Murino, Curriculum Dropout, 2017,
    arXiv:1703.06229; Z. Liu, Z. Xu, J. Jin, Z. Shen, T. Darrell, Dropout Reduces Underfitting,
    2023, arXiv:2303.01500. The rate is linear in the step; the former paper's is exponential, the
    latter's linear one is this.

    Driven are ``nn.Dropout``, ``Dropout1d``, ``Dropout2d``, ``Dropout3d``, ``AlphaDropout`` and
    ``FeatureAlphaDropout``, also where their own rate is 0. They draw their masks from a generator
    of this technique and no longer from the global one, so a run that is resumed draws the masks
    that it would have drawn, which it doesn't without this technique. Under gradient accumulation
    and on several ranks every batch has its own masks; activation checkpointing recomputes what
    was drawn. A subclass with a ``forward`` of its own, ``nn.MultiheadAttention`` and recurrent
    layers get the rate only, and go on drawing from the global generator; the latter two only if
    their own rate isn't 0. Calls of ``torch.nn.functional.dropout`` with a rate of their own can't
    be seen and stay as they are. The layers are looked up again when an epoch begins.

    Under manual optimization a batch counts as a step. In a ``torch.compile``d network the compiled
    graph breaks at every driven layer, which may cost much of what compiling gains.

    When:
        Dropout helps, but slows the start (let it rise from 0), or the network underfits (let it
        fall to 0 early).

    When not:
        The rates that the layers have suffice; dropout in front of BatchNorm, whose statistics its
        rate shifts.

    Args:
        start: the rate at the first step, in [0, 1).
        end: the rate from the end of the span on, in [0, 1).
        span: how long it takes: steps, ``"5ep"``, ``"30%"``; not longer than the run.
        target: ``"all"`` dropout layers, or name patterns (``fnmatch``) of those to be driven.

    Raises:
        ArgumentError: if an argument is out of range, the span is longer than the run, or a
            pattern matches no module.
        ArgumentTypeError: if an argument has another type.
        ConflictError: if another ``ScheduledDropout`` drives the same layer.
        TechniqueError: before the first step: if there is no dropout layer, or a pattern matches
            none.

    Warns:
        NoEffectWarning: at the end of the first epoch, if no layer was called in it.

    If both ends are what every driven layer has anyway, nothing is done. The checkpoint keeps the
    arguments only; after training the layers have their own rates back.

    Example:
        >>> ScheduledDropout(start=0.1, end=0.0, span="50%")
        ScheduledDropout(start=0.1, end=0.0, span='50%')
    """

    def __init__(
        self, start: float, end: float, span: Span, target: str | Sequence[str] = "all"
    ) -> None:
        self.start = check_number(self, "start", start, "[0, 1)")
        self.end = check_number(self, "end", end, "[0, 1)")
        self._span = parse_period(span, self, "span")
        self.span = span
        self.target = check_patterns(self, "target", target, "all")
        self._own_rates: list[tuple[nn.Module, str, float]] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the layers, which are all there now, and let them draw from this technique."""
        layers = self._layers(pl_module)
        own = self._rates_of(layers)
        if all(self.start == self.end == rate for _, _, rate in own):
            self.warn_no_effect(f"every dropout layer has a rate of {self.end} already")
            return
        self._drive(trainer, layers, own)

    def _rates_of(self, layers: list[tuple[str, nn.Module]]) -> list[tuple[nn.Module, str, float]]:
        known = {id(layer): rate for layer, _, rate in self._own_rates}
        named = [(layer, _rate_name(layer)) for _, layer in layers]
        return [(each, name, known.get(id(each), getattr(each, name))) for each, name in named]

    def _drive(
        self,
        trainer: Trainer,
        layers: list[tuple[str, nn.Module]],
        own: list[tuple[nn.Module, str, float]],
    ) -> None:
        drawing = [(name, layer) for name, layer in layers if _kind(layer) is not None]

        def change(index: int, x: Tensor) -> Tensor:
            layer: Any = drawing[index][1]
            return drop(layer, x, self.draw(trainer, index, x.device)) if layer.p else x

        self.take(trainer, drawing, change, stands_in=lambda _: True)
        self._own_rates = own

    def _look_again(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with the layers that the module has now, if it has replaced some."""
        try:
            layers = self._layers(pl_module)
        except UserError:  # none is left, or none of those that were asked for
            layers = []
        now = {id(layer) for _, layer in layers}
        if now == {id(layer) for layer, _, _ in self._own_rates}:
            return
        own, before, unseen = self._rates_of(layers), self._own_rates, self._unseen
        self.let_go_of_layers()
        self._drive(trainer, layers, own)
        self._unseen = unseen  # that was told of, or wasn't the case
        for layer, name, rate in before:
            if id(layer) not in now:
                setattr(layer, name, rate)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Resolve the span now that the length of the run is known."""
        if not self._own_rates:
            return
        run = RunLength.of(trainer, automatic=pl_module.automatic_optimization)
        self._steps = steps_within(run, self._span, self, "span")

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the rate of the step that this batch belongs to."""
        if self._own_rates and batch_idx == 0:
            self._look_again(trainer, pl_module)
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if self._own_rates:
            manual = not pl_module.automatic_optimization
            step = trainer.fit_loop.total_batch_idx if manual else trainer.global_step
            rate = dropout_rate(step, self._steps, self.start, self.end)
            for layer, name, _ in self._own_rates:
                setattr(layer, name, rate)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_own_rates": []}

    def let_go(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the layers back their own rates."""
        for layer, name, rate in self._own_rates:
            setattr(layer, name, rate)
        self._own_rates = []
        super().let_go(trainer, pl_module)

    def _layers(self, pl_module: LightningModule) -> list[tuple[str, nn.Module]]:
        driven = {id(layer) for layer, _, _ in self._own_rates}  # whose rate may be 0 at present
        known = [
            (name, layer)
            for name, layer in named_parts(pl_module)
            if _has_rate(layer) or id(layer) in driven
        ]
        if not known:
            raise self.refuse(
                f"{type(pl_module).__name__} has no dropout layer (calls of "
                "torch.nn.functional.dropout can't be seen): add nn.Dropout where it shall drop"
            )
        if isinstance(self.target, str):
            return known
        chosen = []
        for pattern in self.target:
            try:
                matched = {id(layer) for _, layer in select_modules(pl_module, [pattern])}
            except ArgumentError as error:
                raise ArgumentError(f"{self!r}: {error}") from error
            if not any(id(layer) in matched for _, layer in known):
                raise self.refuse(
                    f"{pattern!r} matches no dropout layer; there are "
                    + listing([name for name, _ in known])
                )
            chosen.append(matched)
        return [(name, layer) for name, layer in known if any(id(layer) in ids for ids in chosen)]


def drop(layer: nn.Module, x: Tensor, generator: torch.Generator) -> Tensor:
    """Return what a dropout layer in training makes of ``x``, drawn from ``generator``."""
    settings: Any = layer
    if isinstance(layer, nn.AlphaDropout):
        return alpha_dropout(x, settings.p, generator)
    if isinstance(layer, nn.FeatureAlphaDropout):
        return alpha_dropout(x, settings.p, generator, dims=2)
    dims = None
    if not isinstance(layer, nn.Dropout):
        # both take a single sample, too, which has no batch dimension
        single = 2 if isinstance(layer, nn.Dropout1d) else 4
        dims = 1 if x.dim() == single and not isinstance(layer, nn.Dropout2d) else 2
    return dropout(x, settings.p, generator, dims, settings.inplace)


def _kind(layer: nn.Module) -> type[nn.Module] | None:
    """Return which of torch's dropout layers this works as, if it is one."""
    return next((kind for kind in DROPOUT if type(layer).forward is kind.forward), None)


def _has_rate(layer: nn.Module) -> bool:
    if isinstance(layer, DROPOUT):
        return True
    return isinstance(layer, WITH_DROPOUT) and bool(layer.dropout)


def _rate_name(layer: nn.Module) -> str:
    return "p" if isinstance(layer, DROPOUT) else "dropout"
