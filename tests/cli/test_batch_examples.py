"""What ``dlopt export`` calls a module with."""

from typing import Any

import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel

from lightning_dlopt.cli.batch_examples import BatchExamples
from lightning_dlopt.cli.mistakes import UsageError
from lightning_dlopt.core import TechniqueError
from tests.cli.exported_modules import Batches, Takes, TakesTwo

A, B, Y = torch.ones(2, 3), torch.zeros(2, 3), torch.tensor([0, 1])


def test_arguments_of_forward_in_batches_of_any_form() -> None:
    one, two = BatchExamples(Takes(), None), BatchExamples(TakesTwo(), None)
    assert one.example_of(A) is A
    assert one.example_of((A, Y)) is A
    assert one.example_of({"tokens": A, "mask": B, "labels": Y}) == {"tokens": A, "mask": B}
    assert one.example_of({"x": A, "mask": B}) is A
    assert two.example_of([A, B, Y]) == (A, B)
    assert two.example_of({"right": A, "left": B, "y": Y}) == {"left": B, "right": A}
    assert BatchExamples(Takes(), None, "b").example_of({"a": A, "b": B}) is B
    assert BatchExamples(TakesTwo(), None, 1).example_of((A, B)) is B
    with pytest.raises(TechniqueError, match=r"'a', 'b'.* input_key="):
        one.example_of({"a": A, "b": B})


def test_the_first_batch_of_validation_or_training_as_the_module_gets_it() -> None:
    data = Batches(val={"tokens": A, "labels": Y}, train={"tokens": B})
    found = BatchExamples(Takes(), data)
    assert torch.equal(found.first()["tokens"], 2 * A)
    assert data.calls == ["prepare", "fit"]
    ((example, target),) = found.labelled("val")
    assert torch.equal(example["tokens"], 2 * A)
    assert torch.equal(target, Y)
    assert [target for _, target in found.labelled("train")] == [None]
    assert not list(found.batches("test"))
    assert torch.equal(BatchExamples(Takes(), Batches(train=(B, Y))).first(), B)


def test_loaders_of_the_module_itself() -> None:
    batch = BatchExamples(BoringModel(), None).first()
    assert batch.shape == (1, 32)


@pytest.mark.parametrize("example", [A, [A, B], {"left": A, "right": B}])
def test_the_modules_own_example_comes_first(example: Any) -> None:
    module = TakesTwo()
    module.example_input_array = example
    found = BatchExamples(module, Batches(val=(B, B))).first()
    if isinstance(example, list):
        assert isinstance(found, tuple)
        assert found[0] is example[0]
    else:
        assert found is example


def test_no_example_at_all() -> None:
    with pytest.raises(UsageError, match=r"no example_input_array.* no data"):
        BatchExamples(Takes(), None).first()


def test_data_go_on_from_the_checkpoint_as_in_every_other_command() -> None:
    data = Batches(val={"tokens": A})
    restored: list[Any] = []
    data.load_state_dict = lambda state: restored.append((state, list(data.calls)))  # type: ignore[method-assign]
    found = BatchExamples(Takes(), data, state={"place": 3})
    found.first()
    list(found.batches("train"))
    assert restored == [({"place": 3}, ["prepare", "fit"])]
