import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy

from lightning_dlopt.core.strategies import strategy_kind
from tests.quiet import QUIET


@pytest.mark.parametrize(
    ("strategy", "kind"),
    [
        ("auto", "single"),
        (DDPStrategy(), "replicated"),
        (DDPStrategy(find_unused_parameters=True), "replicated"),
        (ModelParallelStrategy(), "sharded"),
    ],
)
def test_kinds(strategy: object, kind: str) -> None:
    assert strategy_kind(Trainer(**QUIET, devices=1, strategy=strategy)) == kind


class Stub:
    strategy = object.__new__(FSDPStrategy)


def test_flat_shards_are_another_thing() -> None:
    assert strategy_kind(Stub()) == "other"  # type: ignore[arg-type]
