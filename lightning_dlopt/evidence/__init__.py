"""Evidence: paired comparisons of techniques, and advice from cheap probes."""

from lightning_dlopt.evidence.runs import Run, Study

__all__ = ["Run", "Study"]
