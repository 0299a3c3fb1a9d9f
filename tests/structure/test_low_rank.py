"""LowRank against the decomposition of numpy and the theorem of Eckart and Young."""

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from lightning_dlopt import (
    CheckpointError,
    LowRank,
    NoEffectWarning,
    SqueezeExcite,
    TechniqueError,
    TensorLoader,
    factorize,
    low_rank,
)
from lightning_dlopt.structure import load_from_checkpoint
from tests.quiet import QUIET
from tests.structure import images
from tests.structure.images import Images

LAYERS = {
    "linear": (nn.Linear(7, 5), (4, 7)),
    "no_bias": (nn.Linear(5, 7, bias=False), (2, 3, 5)),
    "signal": (nn.Conv1d(3, 8, 5, stride=2, padding=1), (2, 3, 11)),
    "image": (nn.Conv2d(3, 8, (3, 5), stride=2, padding=(1, 2)), (2, 3, 9, 9)),
    "dilated": (nn.Conv2d(3, 8, 3, padding="same", dilation=2), (2, 3, 9, 9)),
    "reflected": (nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"), (2, 3, 9, 9)),
    "volume": (nn.Conv3d(2, 6, 3, padding=1), (2, 2, 5, 5, 5)),
}


def conv_net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.Flatten(),
        nn.Linear(8 * 16, 10),
    )


class Module(LightningModule):
    """A frozen layer, one that is used twice, and two that share a weight."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first, self.again = nn.Linear(6, width), nn.Linear(width, width)
        self.frozen = nn.Linear(width, width).requires_grad_(False)
        self.left, self.right = nn.Linear(width, width), nn.Linear(width, width)
        self.right.weight = self.left.weight
        self.tail = nn.Sequential(self.again, nn.Linear(width, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.right(self.left(self.frozen(self.again(self.first(x).tanh())))))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test_loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.1)


def loader() -> TensorLoader:
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(24, 6, generator=generator), torch.randint(3, (24,), generator=generator)
    return TensorLoader(x, y, batch_size=8)


def fit(module: LightningModule, *callbacks: Any, epochs: int = 2) -> Trainer:
    settings = {**QUIET, "enable_checkpointing": len(callbacks) > 1}
    trainer = Trainer(**settings, devices=1, max_epochs=epochs, callbacks=list(callbacks))
    trainer.fit(module, loader())
    return trainer


@pytest.mark.parametrize("name", LAYERS)
def test_at_full_rank_it_is_the_same_function(name: str) -> None:
    layer, shape = LAYERS[name]
    pair = factorize(layer, min(layer.weight.flatten(1).shape))
    x = torch.randn(*shape)
    torch.testing.assert_close(pair(x), layer(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(pair.weight, layer.weight, rtol=1e-4, atol=1e-5)
    assert pair.bias is None if layer.bias is None else torch.equal(pair.bias, layer.bias)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("rank", [1, 3])
def test_no_weight_of_that_rank_is_nearer(name: str, rank: int) -> None:
    layer, _ = LAYERS[name]
    matrix = layer.weight.detach().double().flatten(1).numpy()
    values = np.linalg.svd(matrix, compute_uv=False)
    pair = factorize(copy.deepcopy(layer).double(), rank)
    product = pair.weight.detach().flatten(1).numpy()
    assert np.linalg.matrix_rank(product) == rank
    # Eckart and Young: the error is the root of the sum of the squares of the values left out
    error = np.linalg.norm(product - matrix)
    np.testing.assert_allclose(error, np.sqrt((values[rank:] ** 2).sum()), rtol=1e-10)
    # both factors have the roots of the values for their lengths
    first, second = (part.weight.detach().flatten(1) for part in pair)  # type: ignore[operator]
    roots = torch.from_numpy(np.sqrt(values[:rank]))
    torch.testing.assert_close(first.norm(dim=1), roots)
    torch.testing.assert_close(second.norm(dim=0), roots)


def test_a_convolution_is_one_of_the_same_kernel_and_one_of_kernel_one() -> None:
    layer, x = nn.Conv2d(3, 8, 3, stride=2, padding=1), torch.randn(2, 3, 9, 9)
    pair = factorize(layer, 2)
    weight = pair.weight.detach()
    torch.testing.assert_close(
        pair(x), nn.functional.conv2d(x, weight, layer.bias, stride=2, padding=1)
    )
    assert [tuple(part.weight.shape) for part in pair] == [(2, 3, 3, 3), (8, 2, 1, 1)]  # type: ignore[union-attr]


def test_only_layers_that_get_smaller_are_replaced() -> None:
    network = conv_net()
    before = sum(parameter.numel() for parameter in network.parameters())
    # the first as a matrix is 8 x 9, the second 8 x 72, the third 10 x 128
    assert low_rank(network, 0.5) == {"0": 4, "2": 4, "4": 5}
    after = sum(parameter.numel() for parameter in network.parameters())
    assert before - after == (72 - 4 * 17) + (8 * 72 - 4 * 80) + (10 * 128 - 5 * 138)
    assert low_rank(network, 0.25) == {}, "done already"
    assert low_rank(conv_net(), 7) == {"2": 7, "4": 7}
    assert low_rank(conv_net(), 1.0) == low_rank(conv_net(), 10) == {}
    assert low_rank(conv_net(), 0.01) == {"0": 1, "2": 1, "4": 1}
    assert low_rank(conv_net(), 2, ["2"]) == {"2": 2}
    assert low_rank(nn.Linear(8, 8), 1) == {}, "a layer by itself"


def test_what_stays_as_it_is_is_told() -> None:
    hooked, parametrized = nn.Linear(8, 8), nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
    hooked.register_forward_hook(lambda *_: None)
    old_style = nn.utils.weight_norm(nn.Linear(8, 8))
    tied = nn.Linear(8, 8)
    layers = [nn.Conv2d(8, 8, 3, groups=2), hooked, parametrized, old_style, nn.Embedding(8, 8)]
    network = nn.Sequential(*layers, tied)
    tied.weight = layers[-1].weight
    names = [name for name, _ in network.named_parameters()]
    with pytest.warns(UserWarning, match="low_rank leaves") as told:
        assert low_rank(network, 1) == {}
    (message,) = [str(w.message) for w in told if "low_rank" in str(w.message)]
    assert "0 (2 groups), 1 (it has hooks)" in message
    assert "3 (its weight is computed), 5 (its weight is another layer's, too)" in message
    assert [name for name, _ in network.named_parameters()] == names


@pytest.mark.filterwarnings("ignore:low_rank leaves")
def test_shared_and_frozen_layers() -> None:
    module = Module()
    assert low_rank(module, 1) == {"first": 1, "again": 1, "frozen": 1, "tail.1": 1}
    assert module.tail[0] is module.again
    assert not any(parameter.requires_grad for parameter in module.frozen.parameters())
    assert all(parameter.requires_grad for parameter in module.again.parameters())
    assert module.left.weight is module.right.weight


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_mode_and_generators_are_kept(dtype: torch.dtype) -> None:
    layer = nn.Linear(6, 8).to(dtype).eval()
    state = torch.get_rng_state()
    pair = factorize(layer, 2)
    assert {parameter.dtype for parameter in pair.parameters()} == {dtype}
    assert not any(part.training for part in pair.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_attention_goes_on_in_both_modes() -> None:
    """Torch's encoder looks at the weights of its layers in evaluation."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    names = ["layers.0.linear1", "layers.0.linear2", "layers.1.linear1", "layers.1.linear2"]
    assert low_rank(encoder, 4) == dict.fromkeys(names, 4)
    x = torch.randn(3, 5, 8)
    trained = encoder.train()(x)
    with torch.no_grad():
        torch.testing.assert_close(encoder.eval()(x), trained, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:low_rank leaves")
@pytest.mark.parametrize("weights_only", [False, True])
def test_a_checkpoint_is_rebuilt(tmp_path: Path, weights_only: bool) -> None:
    saving = ModelCheckpoint(tmp_path, filename="last", save_weights_only=weights_only)
    module = Module()
    frozen = module.frozen.weight.detach().clone()
    fit(module, LowRank(rank=2), saving)
    path, x = tmp_path / "last.ckpt", torch.randn(4, 6)
    loaded = load_from_checkpoint(Module, path)
    assert torch.equal(loaded(x), module(x))
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin(x), module(x))
    exported = torch.export.export(module.tail, (torch.randn(2, 8),))
    x = torch.randn(2, 8)
    torch.testing.assert_close(exported.module()(x), module.tail(x))
    # the frozen layer has not moved from its decomposition
    u, s, v = np.linalg.svd(frozen.numpy())
    product = (u[:, :2] * s[:2]) @ v[:2]
    np.testing.assert_allclose(module.frozen.weight.detach().numpy(), product, atol=1e-5)
    tester = Trainer(**QUIET, devices=1, callbacks=[LowRank(rank=2)])
    (result,) = tester.test(Module(), loader(), ckpt_path=path, verbose=False)
    (again,) = tester.test(loaded, loader(), verbose=False)
    assert result == again


@pytest.mark.filterwarnings("ignore:low_rank leaves")
def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    fit(Module(), LowRank(rank=2), ModelCheckpoint(tmp_path, filename="last"))
    path = tmp_path / "last.ckpt"
    with pytest.raises(RuntimeError, match="first"):
        load_from_checkpoint(Module, path, width=6)

    class Other(Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Tanh()

    with pytest.raises(CheckpointError, match=r"rank 2 for 'first', and the module's is Tanh"):
        load_from_checkpoint(Other, path)


@pytest.mark.filterwarnings("ignore:low_rank leaves")
def test_a_second_fit_changes_nothing_more() -> None:
    module, technique = Module(), LowRank(rank=2)
    fit(module, technique)
    names = [name for name, _ in module.named_parameters()]
    fit(module, LowRank(rank=2))
    assert [name for name, _ in module.named_parameters()] == names


def test_what_has_no_effect_and_what_is_wrong() -> None:
    with pytest.warns(NoEffectWarning, match=r"LowRank\(rank=1.0\) has no effect: no layer"):
        fit(Module(), LowRank(rank=1.0))
    module = Module()
    names = [name for name, _ in module.named_parameters()]
    with pytest.raises(TechniqueError, match="no module's name matches 'decoder'"):
        fit(module, LowRank(target=["decoder"]))
    assert [name for name, _ in module.named_parameters()] == names
    with pytest.raises(ValueError, match=r"rank=9 is not in \[1, 5\]"):
        factorize(nn.Linear(7, 5), 9)
    module.tail[1].weight.data[0, 0] = torch.nan
    with pytest.raises(TechniqueError, match=r"LowRank.*tail.1.*finite"):
        fit(module, LowRank(rank=1))
    assert [name for name, _ in module.named_parameters()] == names


@pytest.mark.filterwarnings("ignore:low_rank leaves")
@pytest.mark.parametrize("first", [True, False])
def test_beside_another_surgery(first: bool, tmp_path: Path) -> None:
    thin, excite = LowRank(rank=2), SqueezeExcite(reduction=2, min_channels=6)
    pair = [thin, excite] if first else [excite, thin]
    module = Images()
    weights = images.fit(module, *pair, ModelCheckpoint(tmp_path, filename="last"))
    loaded = load_from_checkpoint(Images, tmp_path / "last.ckpt")
    images.assert_same(dict(loaded.state_dict()), weights)
    again = [LowRank(rank=2), SqueezeExcite(reduction=2, min_channels=6)]
    resumed = again if first else again[::-1]
    images.fit(Images(), *resumed, resume=tmp_path / "last.ckpt", max_epochs=3)
