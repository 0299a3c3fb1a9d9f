"""How many of the weights does the network need?"""

import math
from importlib.util import find_spec
from typing import Any, ClassVar

from torch import nn

from lightning_dlopt.core.errors import ArgumentError
from lightning_dlopt.core.parameters import select_parameters
from lightning_dlopt.core.sample_count import count_samples
from lightning_dlopt.evidence.advise.finding import Finding, NotDoneError, Question
from lightning_dlopt.evidence.advise.overlays import add_callback
from lightning_dlopt.evidence.advise.probe import Probe
from lightning_dlopt.evidence.advise.prunable_share import prunable_share
from lightning_dlopt.evidence.advise.subject import Subject
from lightning_dlopt.evidence.advise.trained_copy import run_training_step, trained_copy

#: Batches whose loss is watched at most, how often, and which part of what
#: training has gained may be lost.
_BATCHES, _RUNS, _TOLERANCE = 8, 9, 0.01
#: Steps of training without which nothing can be said.
_STEPS = 20
#: Weights for each training sample above which a network with weights to spare is too large.
_PER_SAMPLE = 500
#: The share of weights from which pruning is worth a trial.
_MANY = 0.7


class OneShotPruning(Probe):
    """Sets the smallest weights of a briefly trained copy to 0 until its loss moves.

    It may rise by a hundredth of what training has gained: a hundredth of itself would be nothing
    where it is nearly 0.

    The loss is that of held-out samples where there are some, else of training samples. After a
    long training more or fewer weights may be spared: this is where it starts from.
    """

    name: ClassVar[str] = "one-shot pruning"
    questions: ClassVar[tuple[Question, ...]] = ("generalization",)
    share: ClassVar[float] = 1.0

    def run(self, subject: Subject) -> list[Finding]:
        """Return one finding."""
        batches = subject.batches(_BATCHES, "val") or subject.batches(_BATCHES)
        training = trained_copy(subject, 0.45)
        module = training.module
        if training.steps < _STEPS:
            raise NotDoneError(
                f"there was time for {training.steps} steps of training, and {_STEPS} are needed "
                "before weights can be told apart"
            )
        weights = [weight for _, weight in select_parameters(module)]
        if not weights:
            raise NotDoneError("there are no weights of two or more dimensions to be trained")
        begin = subject.clock()
        run_training_step(module, batches[:1])
        times = subject.seconds_left() / (_RUNS * max(subject.clock() - begin, 1e-9))
        batches = batches[: max(int(min(times, _BATCHES)), 1)]
        initial = subject.train(max_steps=0, plain=True).module
        before = _mean(run_training_step(initial, batches).losses)
        after = _mean(run_training_step(module, batches).losses)
        if not after < before - 0.1 * abs(before):  # true of NaN
            raise NotDoneError(
                f"the loss is {after:.3g} after {training.steps} steps and {before:.3g} before: "
                "which weights matter isn't decided yet"
            )
        share, _ = prunable_share(
            weights,
            lambda: _mean(run_training_step(module, batches).losses),
            after + _TOLERANCE * (before - after),
            steps=5,
        )
        samples = training.epoch * batch_size(subject.batches(1))
        total = sum(one.numel() for one in weights)
        return [self._finding(module, share, total, samples, training.steps)]

    def _finding(
        self, module: nn.Module, share: float, total: int, samples: float, steps: int
    ) -> Finding:
        data = {"share": share, "weights": total, "samples": samples, "steps": steps}
        figure = (
            f"{share:.0%} of {total:,} weights can be 0 before 1 % of what {steps} steps have "
            "gained is lost"
        )
        if share < _MANY:
            return Finding(
                self.name,
                "generalization",
                figure,
                "So many can always be spared: the network isn't clearly too large.",
                data,
            )
        few = total > samples * _PER_SAMPLE
        if few:
            figure += f", and there are about {samples:,.0f} training samples"
        layers = sum(isinstance(one, nn.Linear | nn.Conv2d) for one in module.modules())
        if layers > 1 and find_spec("torch_pruning") is not None:
            overlay = add_callback("ChannelPruning", speed_up=2.0)
            how = "a network of half the size (ChannelPruning, or fewer channels from the start)"
            arm = "half_size"
        else:
            sparsity = math.floor(share * 10) / 10
            overlay = add_callback("MagnitudePruning", sparsity=sparsity)
            how = f"a smaller network, or MagnitudePruning(sparsity={sparsity:g})"
            arm = "sparse"
        return Finding(
            self.name,
            "generalization",
            figure,
            "Weights to spare cost time and memory"
            + (", and so many for so few samples learn by heart what is chance in them." * few)
            + ("." * (not few)),
            data,
            0.3 if few else 0.1,
            how,
            overlay,
            arm,
        )


def _mean(values: list[float]) -> float:
    return sum(values) / max(len(values), 1)


def batch_size(batches: list[Any]) -> float:
    """Return how many samples the first batch has; infinity if that can't be told."""
    try:
        return float(count_samples(batches[0]))
    except (IndexError, ArgumentError):
        return math.inf
