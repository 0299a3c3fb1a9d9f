"""OptimizerMixin: a module that carries its optimizer."""

import pytest
import torch
from lightning.pytorch import LightningModule
from torch.optim import Adagrad

from lightning_dlopt import OptimizerMixin, UseOptimizer
from lightning_dlopt.core import TechniqueError
from tests.optimizers.grouped import DECAYING
from tests.optimizers.toy import Toy, fit, rates, toy


class Bare(LightningModule):
    """Says nothing about its optimizer."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Toy().net

    training_step = Toy.training_step


class Carrying(OptimizerMixin, Bare):
    pass


def test_a_module_without_configure_optimizers_trains_with_the_one_it_carries() -> None:
    torch.manual_seed(3)
    module = Carrying(optimization=[UseOptimizer(DECAYING, layer_decay=0.5)])
    trainer = fit(module)
    other = toy()
    callback_form = fit(other, UseOptimizer(DECAYING, layer_decay=0.5))
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])
    assert str(trainer.optimizers[0].state_dict()) == str(callback_form.optimizers[0].state_dict())


def test_the_mixin_alone_says_what_is_missing() -> None:
    with pytest.raises(TechniqueError, match="Carrying has no configure_optimizers"):
        fit(Carrying())


def test_the_mixin_leaves_the_modules_own_optimizer() -> None:
    class Own(OptimizerMixin, Toy):
        pass

    torch.manual_seed(3)
    trainer = fit(Own())
    assert isinstance(trainer.optimizers[0], Adagrad)
    assert rates(trainer) == [7.0]
