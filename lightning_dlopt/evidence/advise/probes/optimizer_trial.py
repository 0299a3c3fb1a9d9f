"""Probe: short runs with the usual optimizers beside the configured one."""

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torch.optim import SGD, AdamW, Optimizer

from lightning_dlopt.evidence.advise.finding import Finding, NotDoneError
from lightning_dlopt.evidence.advise.overlays import add_callback, callback_names
from lightning_dlopt.evidence.advise.probe import Probe
from lightning_dlopt.evidence.advise.probes.rate_range import ScaleRates, progress
from lightning_dlopt.evidence.advise.subject import Subject
from lightning_dlopt.optimizers import UseOptimizer

_STEPS, _LEAST = 60, 30
#: Share of the best one's progress below which another optimizer is worth a comparison.
_BEHIND = 0.75
#: An idea, never an alarm: a short run favors what is fast at first.
_IDEA = 0.2

Make = Callable[[Iterable[Any]], Optimizer]

#: By name: the class, the class's path in a configuration, and its arguments.
CANDIDATES: dict[str, tuple[type[Optimizer], str, dict[str, Any]]] = {
    "AdamW at 0.001": (AdamW, "torch.optim.AdamW", {"lr": 0.001}),
    "AdamW at 0.003": (AdamW, "torch.optim.AdamW", {"lr": 0.003}),
    "SGD with momentum at 0.02": (SGD, "torch.optim.SGD", {"lr": 0.02, "momentum": 0.9}),
    "SGD with momentum at 0.1": (SGD, "torch.optim.SGD", {"lr": 0.1, "momentum": 0.9}),
}


class OptimizerTrial(Probe):
    """Trains for a while with the configured optimizer, and as long with each of the usual ones."""

    name = "optimizers side by side"
    questions = ("optimizer",)
    share = 4.0

    def run(self, subject: Subject) -> list[Finding]:
        """Compare the losses that are reached in equally many steps."""
        if not subject.module.automatic_optimization:
            raise NotDoneError("the module optimizes by hand: its optimizer can't be replaced")
        if "UseOptimizer" in callback_names(subject.config):
            raise NotDoneError("the configuration has an UseOptimizer, beside which none can stand")
        optimizers = subject.optimizers()
        if len(optimizers) != 1:
            raise NotDoneError(f"the module has {len(optimizers)} optimizers")
        steps = subject.affordable(_STEPS, _LEAST, runs=1 + len(CANDIDATES))
        own = f"{type(optimizers[0]).__name__} as configured"
        losses = {own: self._reached(subject, steps)}
        for name, (cls, _, arguments) in CANDIDATES.items():
            losses[name] = self._reached(subject, steps, partial(cls, **arguments))
        done = {name: curve for name, curve in losses.items() if curve}
        if own not in done or len(done) < 2:
            raise NotDoneError("the time was over before two optimizers had their runs")
        start = done[own][0]
        gains = {name: progress(start, curve) for name, curve in done.items()}
        best = max(gains, key=lambda name: gains[name])
        order = sorted(gains, key=lambda name: -gains[name])
        reached = [f"{name}: {start - gains[name]:.3g}" for name in order]
        figure = f"loss {start:.3g} at first; after {steps} steps with {'; '.join(reached)}"
        data = {"start_loss": start, "steps": steps, "loss": {n: start - gains[n] for n in order}}
        behind = gains[own] < _BEHIND * gains[best]
        if best == own or not math.isfinite(start) or gains[best] <= 0 or not behind:
            reason = "No other optimizer was much faster in these steps than the configured one."
            return [Finding(self.name, "optimizer", figure, reason, data)]
        _, path, arguments = CANDIDATES[best]
        overlay = add_callback(
            "UseOptimizer", optimizer={"class_path": path, "init_args": dict(arguments)}
        )
        reason = f"{best} made more progress in as many steps than {own}; a rate may be what tells."
        return [Finding(self.name, "optimizer", figure, reason, data, _IDEA, best, overlay)]

    @staticmethod
    def _reached(subject: Subject, steps: int, make: Make | None = None) -> list[float]:
        """Return the losses of a run; nothing if the time was over, infinity if it failed."""
        watch = ScaleRates(lambda _: 1.0)
        callbacks = [watch] if make is None else [UseOptimizer(make), watch]
        try:
            if subject.train(callbacks, max_steps=steps).cut_off:
                return []
        except NotDoneError:
            raise
        except Exception:  # a rate that is too high for a module may make it fail
            if make is None:
                raise
            return [math.inf]
        return watch.losses
