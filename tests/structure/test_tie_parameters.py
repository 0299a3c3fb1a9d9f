"""TieParameters against one tensor that is used twice."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_dlopt.core import ArgumentError, NoEffectWarning, TechniqueError
from lightning_dlopt.structure import (
    ShareLayers,
    SqueezeExcite,
    TieParameters,
    load_from_checkpoint,
    tie_parameters,
)
from tests.structure.to_tie import PAIRS, RATE, WIDTH, WORDS, LanguageModel, batches, fit, is_tied


def test_it_trains_as_a_loop_over_one_tensor() -> None:
    module = LanguageModel()
    weight = module.net.embedding.weight.detach().clone().requires_grad_()
    bias = module.net.decoder.bias.detach().clone().requires_grad_()
    optimizer = torch.optim.AdamW([weight, bias], lr=RATE)
    for words, target in batches() * 2:
        logits = functional.linear(functional.embedding(words, weight).mean(1), weight, bias)
        optimizer.zero_grad()
        functional.cross_entropy(logits, target).backward()
        optimizer.step()
    trainer = fit(module, TieParameters(PAIRS))
    assert is_tied(module)
    torch.testing.assert_close(module.net.embedding.weight, weight)
    torch.testing.assert_close(module.net.decoder.bias, bias)
    (group,) = trainer.optimizers[0].param_groups
    assert sum(p.numel() for p in group["params"]) == WORDS * WIDTH + WORDS
    assert len(trainer.optimizers[0].state) == 2


class TwoOptimizers(LanguageModel):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        raise AssertionError("no step may be made")

    def configure_optimizers(self) -> Any:
        parts = (self.net.embedding, self.net.decoder)
        return [torch.optim.SGD(part.parameters(), lr=RATE) for part in parts]


def test_copies_and_a_second_fit_keep_the_tie() -> None:
    module = LanguageModel()
    fit(module, TieParameters(PAIRS))
    kept = module.net.embedding.weight
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert is_tied(twin)
        assert twin.net.decoder.weight is not kept
    fit(module, TieParameters(PAIRS))
    assert is_tied(module)
    assert module.net.embedding.weight is kept
    assert is_tied(module.to(torch.float64))


def test_the_refusal_names_the_technique() -> None:
    with pytest.raises(TechniqueError, match=r"TieParameters\(.*no parameter 'head.weight'"):
        fit(LanguageModel(), TieParameters([("head.weight", "net.embedding.weight")]))


def test_two_optimizers_may_not_step_it() -> None:
    with pytest.raises(TechniqueError, match="which SGD and SGD would both step"):
        fit(TwoOptimizers(), TieParameters(PAIRS))


def test_what_is_replaced_later_is_told() -> None:
    class Replacing(LanguageModel):
        def configure_optimizers(self) -> Any:
            self.net.decoder.weight = nn.Parameter(self.net.decoder.weight.detach().clone())
            return super().configure_optimizers()

    with pytest.raises(TechniqueError, match="aren't one Parameter any more"):
        fit(Replacing(), TieParameters(PAIRS))


def test_it_goes_behind_what_renames_layers(tmp_path: Path) -> None:
    class Convolutions(LanguageModel):
        def __init__(self) -> None:
            super().__init__()
            self.images = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(2))

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            x = torch.ones(1, 4, 2, 2)
            for layer in self.images:
                x = layer(x)
            return x.square().sum()

    excite = SqueezeExcite(min_channels=4, reduction=2)
    with pytest.raises(TechniqueError, match=r"there is no images.1.weight any more"):
        fit(Convolutions(), TieParameters([("images.1.weight", "images.0.weight")]), excite)
    module, sharing = Convolutions(), ShareLayers("images.*")
    tying = TieParameters([("images.0.0.bias", "images.0.1.fc2.bias")])
    trainer = fit(module, excite, sharing, tying)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    loaded: Any = load_from_checkpoint(Convolutions, tmp_path / "one.ckpt")
    for one in (module, loaded):
        assert one.images[1][1].fc1.weight is one.images[0][1].fc1.weight
        assert one.images[1][0].bias is one.images[0][1].fc2.bias
    assert torch.equal(loaded.images[0][0].weight, module.images[0][0].weight)


def test_a_tie_of_the_module_itself_is_no_effect() -> None:
    module = LanguageModel()
    module.net.decoder.weight = module.net.embedding.weight
    with pytest.warns(NoEffectWarning, match="one Parameter already"):
        fit(module, TieParameters(PAIRS))


def test_ties_of_before_stay_together() -> None:
    net = nn.Sequential(*(nn.Linear(3, 3) for _ in range(4)))
    net[1].weight = net[0].weight
    assert tie_parameters(net, [("0.weight", "2.weight"), ("2.weight", "3.weight")])
    assert len({id(layer.weight) for layer in net}) == 1
    assert tie_parameters(net, [("0.weight", "3.weight")]) == []


def test_parts_that_a_module_holds_twice_and_its_own_parameters() -> None:
    layer = nn.Linear(3, 3)
    net = nn.ModuleList([layer, layer, nn.Linear(3, 3)])
    tie_parameters(net, [("1.weight", "2.weight")])
    assert net[0].weight is net[2].weight
    bare = nn.LayerNorm(3)
    tie_parameters(bare, [("weight", "bias")])
    assert bare.weight is bare.bias


def test_recurrent_layers_compute_with_it() -> None:
    net = nn.ModuleList([nn.LSTM(3, 3), nn.LSTM(3, 3)])
    tie_parameters(net, [(f"1.{n}", f"0.{n}") for n, _ in net[0].named_parameters()])
    inputs = torch.randn(4, 2, 3)
    with torch.no_grad():
        net[0].weight_hh_l0.mul_(2)
    assert torch.equal(net[0](inputs)[0], net[1](inputs)[0])


@pytest.mark.parametrize(
    ("second", "why"),
    [
        (nn.Linear(3, 4), r"their shapes are \(3, 3\) and \(4, 3\)"),
        (nn.Linear(3, 3).double(), r"their dtypes are torch.float32 and torch.float64"),
        (nn.Linear(3, 3).requires_grad_(False), "requires_grad are True and False"),
        (nn.Linear(3, 3, device="meta"), "their devices are cpu and meta"),
        (nn.LazyLinear(3), "1.weight belongs to a lazy module"),
        (nn.Tanh(), "there is no parameter '1.weight'; the module has 0.weight, 0.bias, 2.weight"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_changed(second: nn.Module, why: str) -> None:
    net = nn.Sequential(nn.Linear(3, 3), second, nn.Linear(3, 3))
    before = list(net.parameters())
    with pytest.raises(ArgumentError, match=why):
        tie_parameters(net, [("2.weight", "0.weight"), ("0.weight", "1.weight")])
    assert all(one is other for one, other in zip(net.parameters(), before, strict=True))


def test_frozen_ones_stay_frozen() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).requires_grad_(False)
    tie_parameters(net, [("1.weight", "0.weight")])
    assert net[1].weight is net[0].weight
    assert not net[1].weight.requires_grad
