"""Which arm stands where, and as what."""

from typing import Literal

from lightning_dlopt.evidence.analysis import Analysis, ArmResult
from lightning_dlopt.evidence.runs import A_A, Study

#: What a row of a table or a mark in a picture stands for.
Role = Literal["noise", "helps", "hurts", "can't tell"]


def role_of(result: ArmResult) -> Role:
    """Return an arm's verdict, or that it is the A/A arm."""
    return "noise" if result.arm == A_A else result.verdict


def better(study: Study, difference: float) -> float:
    """Return a difference turned so that more is better."""
    return difference if study.larger_is_better else -difference


def in_order(study: Study, analysis: Analysis) -> list[ArmResult]:
    """Return the A/A arm, then the others from the best effect to the worst, then those without."""

    def place(result: ArmResult) -> tuple[bool, bool, float]:
        effect = result.effect
        return (
            result.arm != A_A,
            effect is None,
            -better(study, effect) if effect is not None else 0.0,
        )

    return sorted(analysis.arms, key=place)


def compared(analysis: Analysis) -> list[ArmResult]:
    """Return the results of the study's own arms, A/A left out."""
    return [result for result in analysis.arms if result.arm != A_A]
