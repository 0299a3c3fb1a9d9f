"""Techniques that change what single layers do, with random draws of their own for each call."""

import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lightning_dlopt.core.errors import ConflictError
from lightning_dlopt.core.named_modules import listing
from lightning_dlopt.core.technique import Technique, techniques_of

#: From a layer's index and what it gives (or gets) to what it returns instead.
Change = Callable[[int, Any], Any]


def in_backward_pass() -> bool:
    """Return whether a backward pass is running, as it is when activations are recomputed.

    Example:
        >>> in_backward_pass()
        False
    """
    # what torch.utils.checkpoint itself goes by; there is no public way to ask
    return torch._C._current_graph_task_id() != -1


def eagerly(function: Callable[..., Any], *, what_it_calls: bool = True) -> Callable[..., Any]:
    """Keep ``torch.compile`` from compiling a function, and by default all that it calls."""
    kept: Callable[..., Any] = torch.compiler.disable(function, recursive=what_it_calls)  # type: ignore[no-untyped-call]
    return kept


class LayerTechnique(Technique):
    """Replaces what single layers do in training.

    Each layer draws from a generator keyed by the run's seed, the technique, the rank, the
    batch, the layer, and how many times the layer was called in this batch. A call that is
    repeated draws the same again: when activation checkpointing recomputes it, and when a
    technique that runs ``training_step`` twice rewinds the module in between. The counts are plain
    attributes of the layers for that purpose, and are gone after training.

    If no layer is called in the first epoch, there is a NoEffectWarning at its end.
    """

    #: The layers that are changed at present.
    taken: Sequence[nn.Module] = ()
    _names: Sequence[str] = ()
    _unseen = False
    _counter = ""

    def take(
        self,
        trainer: Trainer,
        layers: Sequence[tuple[str, nn.Module]],
        change: Change,
        stands_in: Callable[[nn.Module], bool] = lambda _: False,
    ) -> None:
        """Let ``change`` make something else of what the layers return.

        It does so in training only: in ``trainer.training`` and where the layer is in training
        mode. Layers for which ``stands_in`` is true don't run at all: what they get is changed.

        Raises:
            ConflictError: if another technique of this class has one of the layers.
        """
        names = {id(layer): name for name, layer in layers}
        for other in techniques_of(trainer):
            if isinstance(other, type(self)) and other is not self:
                for layer in other.taken:
                    if id(layer) in names:
                        raise ConflictError(
                            f"{other!r} and {self!r} both work on {names[id(layer)]}: let each "
                            "have layers of its own"
                        )
        self.taken = [layer for _, layer in layers]
        self._names = [name for name, _ in layers]
        self._unseen = bool(layers)
        self._counter = f"_calls_{zlib.crc32(self.state_key.encode()):08x}"
        self._begin()

        def is_training(layer: nn.Module) -> bool:
            self._unseen = self._unseen and not layer.training
            return layer.training and trainer.training

        def around(layer: nn.Module, change: Callable[[Any], Any]) -> Any:
            # a generator can't be part of a compiled graph, and what else is done here is cheap
            trains, changed = eagerly(is_training), eagerly(change)
            runs = not stands_in(layer)

            def wrap(forward: Callable[..., Any]) -> Callable[..., Any]:
                def replaced(*args: Any, **kwargs: Any) -> Any:
                    if not trains(layer):
                        return forward(*args, **kwargs)
                    if runs:
                        return changed(forward(*args, **kwargs))
                    (x,) = [*args, *kwargs.values()]
                    return changed(x)

                return eagerly(replaced, what_it_calls=False)

            return wrap

        for index, layer in enumerate(self.taken):
            self.patch(layer, "forward", around(layer, partial(change, index)))

    def draw(self, trainer: Trainer, index: int, device: torch.device) -> torch.Generator:
        """Return the generator of the present call of a layer, and count the call."""
        layer = vars(self.taken[index])
        calls = layer[self._counter]
        if in_backward_pass():
            if calls > 1:
                raise self.refuse(
                    f"{self._names[index]} was called {calls} times in this batch and is now "
                    "recomputed in the backward pass (activation checkpointing), so which of its "
                    "calls that is can't be told: call it once, or leave it out of the checkpoint"
                )
            call = 0
        else:
            call = calls
            layer[self._counter] = calls + 1
        return self.generator(trainer, device, key=(index, call))

    # ---- what Lightning calls ----

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start counting anew."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self._begin()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell if an epoch has gone by without a call; some batches may have no use for a layer."""
        if self._unseen:
            self._unseen = False
            self.warn_no_effect(
                "in its first epoch training_step called none of the layers that it works on: "
                + listing(self._names)
            )

    def let_go(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let go of the layers."""
        self.let_go_of_layers()
        self._unseen = False

    def let_go_of_layers(self) -> None:
        """Give the layers back their own ways, in training or after it."""
        for layer in self.taken:
            self._patches.undo_of(layer)
            vars(layer).pop(self._counter, None)
        self.taken = ()

    def __getstate__(self) -> dict[str, Any]:
        # nor must a copy carry the original's layers along
        run = {"taken", "_names", "_unseen", "_counter"}
        return {name: value for name, value in super().__getstate__().items() if name not in run}

    def _begin(self) -> None:
        for layer in self.taken:
            vars(layer)[self._counter] = 0


def noise(
    x: Tensor, p: float, generator: torch.Generator | None, dims: int | None = None
) -> Tensor:
    """Return zeros with probability ``p`` and ones otherwise, to be multiplied with ``x``.

    Args:
        x: any tensor; the result has its dtype and device.
        p: in [0, 1].
        generator: draws from it, or from torch's global one.
        dims: how many of the first dimensions have draws of their own; the result has size 1 in
            the others. All of them by default.

    Example:
        >>> noise(torch.ones(2, 3), 1.0, None, dims=1)
        tensor([[0.],
                [0.]])
    """
    dims = x.dim() if dims is None else dims
    shape = [*x.shape[:dims], *[1] * (x.dim() - dims)]
    zeros_and_ones = torch.empty(shape, dtype=x.dtype, device=x.device)
    return zeros_and_ones.bernoulli_(1 - p, generator=generator)
