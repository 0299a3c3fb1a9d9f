from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_dlopt import NoEffectWarning, TechniqueError
from lightning_dlopt.core.batch_technique import BatchTechnique
from lightning_dlopt.core.errors import ArgumentError
from tests.quiet import QUIET


class Add(BatchTechnique):
    """Adds ``number`` to the input, and a draw if it is told to."""

    def __init__(self, number: float, draws: bool = False) -> None:
        self.number = number
        self.draws = draws

    def neutral(self) -> str | None:
        return "number is 0" if self.number == 0 else None

    def change(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        if batch.dim() != 2:
            raise ArgumentError("add: batch has no rows")
        noise = torch.rand(len(batch), 1, generator=generator) if self.draws else 0
        return batch + self.number + noise


class Double(Add):
    def change(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        return batch * 2


class Sees(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.seen: list[Tensor] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.seen.append(batch)
        return self.layer(batch.float().reshape(-1, 2)).sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.training_step(batch, batch_idx)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Named(Sees):
    def training_step(self, batch: Any) -> Any:  # type: ignore[override]
        return super().training_step(batch, 0)

    def validation_step(self, batch: Any) -> None:  # type: ignore[override]
        pass


def loader(batches: list[Tensor]) -> Any:
    return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


def fit(*techniques: Any, module: Any = None, batches: Any = None, **arguments: Any) -> Any:
    module = module or Sees()
    settings = {**QUIET, "max_epochs": 1, "num_sanity_val_steps": 0, **arguments}
    Trainer(callbacks=list(techniques), **settings).fit(
        module, loader(batches or [torch.ones(3, 2)] * 2)
    )
    return module


@pytest.mark.parametrize("module", [Sees, Named])
def test_the_training_step_gets_the_changed_batch(module: type[Sees]) -> None:
    assert [float(batch.mean()) for batch in fit(Add(1.0), module=module()).seen] == [2.0, 2.0]


def test_the_first_of_the_list_works_first() -> None:
    assert float(fit(Add(1.0), Double(1.0)).seen[0].mean()) == 4.0
    assert float(fit(Double(1.0), Add(1.0)).seen[0].mean()) == 3.0


def test_callbacks_see_the_batch_as_it_was() -> None:
    seen: list[float] = []

    class Looks(Callback):
        def on_train_batch_end(
            self, trainer: Any, pl_module: Any, outputs: Any, batch: Tensor, batch_idx: int
        ) -> None:
            seen.append(float(batch.mean()))

    fit(Add(1.0), Looks())
    assert seen == [1.0, 1.0]


def test_validation_by_the_training_step_gets_its_own_batch() -> None:
    module = Sees()
    one = loader([torch.ones(3, 2)])
    trainer = Trainer(**QUIET, max_epochs=1, callbacks=[Add(1.0)], num_sanity_val_steps=0)
    trainer.fit(module, one, one)
    assert [float(batch.mean()) for batch in module.seen] == [2.0, 1.0]


def test_draws_differ_by_batch_and_by_seed_and_come_again() -> None:
    def drawn(seed: int) -> list[float]:
        seed_everything(seed, verbose=False)
        return [float(batch.sum()) for batch in fit(Add(1.0, draws=True)).seen]

    first, again, other = drawn(1), drawn(1), drawn(2)
    assert first == again
    assert len({*first, *other}) == 4


def test_neutral_arguments_leave_the_step_alone() -> None:
    with pytest.warns(NoEffectWarning, match="number is 0"):
        module = fit(Add(0))
    assert float(module.seen[0].mean()) == 1.0


def test_what_is_wrong_with_the_data_refuses_the_module() -> None:
    with pytest.raises(TechniqueError, match=r"Add\(number=1.0\): add: batch has no rows"):
        fit(Add(1.0), batches=[torch.ones(2)])


def test_a_refusal_names_the_technique_once() -> None:
    error = Add(1.0).refused(ArgumentError("Add: batch of Add: rows"))
    assert str(error) == "Add(number=1.0): batch of Add: rows"


def test_a_module_that_takes_the_iterator_is_refused() -> None:
    class Iterates(Sees):
        def training_step(self, dataloader_iter: Any) -> Any:  # type: ignore[override]
            return super().training_step(next(dataloader_iter)[0], 0)

    with pytest.raises(TechniqueError, match=r"Add\(number=1.0\).*dataloader_iter"):
        fit(Add(1.0), module=Iterates())


class Switches(Sees):
    def other(self, batch: Any, batch_idx: int) -> Any:
        return Sees.training_step(self, batch, batch_idx)


class Switch(Callback):
    """Sets another training step, when it is told to."""

    def __init__(self, hook: str) -> None:
        setattr(self, hook, self.switch)

    def switch(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        pl_module.training_step = pl_module.other


def test_a_training_step_that_is_switched_between_epochs_is_followed() -> None:
    module = fit(Add(1.0), Switch("on_train_epoch_start"), module=Switches())
    assert [float(batch.mean()) for batch in module.seen] == [2.0, 2.0]


@pytest.mark.parametrize("manual", [False, True])
def test_a_training_step_that_is_switched_within_a_batch_is_refused(manual: bool) -> None:
    class Manual(Switches):
        def other(self, batch: Any, batch_idx: int) -> Any:
            loss = super().other(batch, batch_idx)
            self.manual_backward(loss)
            self.optimizers().step()  # type: ignore[union-attr]

    module = Manual() if manual else Switches()
    module.automatic_optimization = not manual
    with pytest.raises(TechniqueError, match=r"Add.*when the batch had begun"):
        fit(Add(1.0), Switch("on_train_batch_start"), module=module)
