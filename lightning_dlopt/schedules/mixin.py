"""The learning-rate schedules for modules that bring their own."""

from typing import Any, ClassVar

from lightning_dlopt.core.errors import ArgumentTypeError
from lightning_dlopt.core.mixin import TechniqueMixin
from lightning_dlopt.schedules.base import Schedule


class ScheduleMixin(TechniqueMixin):
    """Gives a LightningModule a ``schedule`` argument; put it before ``LightningModule``.

    Training is the same as with the schedule among the Trainer's callbacks.

    Args:
        *args: handed on to the next class.
        schedule: a schedule such as :class:`CosineLR`, or None for none.
        **kwargs: handed on to the next class.

    Raises:
        ArgumentTypeError: if ``schedule`` is something else, such as a torch scheduler.

    Example:
        >>> from lightning.pytorch.demos.boring_classes import BoringModel
        >>> from lightning_dlopt.schedules import CosineLR
        >>> class Scheduled(ScheduleMixin, BoringModel):
        ...     pass
        >>> Scheduled(schedule=CosineLR(warmup="5%")).schedule
        CosineLR(warmup='5%')
    """

    technique_arguments: ClassVar[tuple[str, ...]] = ("schedule",)

    def __init__(self, *args: Any, schedule: Schedule | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if schedule is not None and not isinstance(schedule, Schedule):
            raise ArgumentTypeError(
                f"{type(self).__name__}: schedule={schedule!r} must be a schedule of "
                "lightning_dlopt.schedules, such as CosineLR()"
            )
        self.schedule = schedule
        self.add_techniques(schedule)
