"""ShareLayers against one layer that is applied several times."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm

from lightning_dlopt.core import ArgumentError, NoEffectWarning, TechniqueError
from lightning_dlopt.structure import ShareLayers, load_from_checkpoint, share_layers
from tests.quiet import QUIET

WIDTH, LAYERS, RATE = 8, 3, 0.05


def encoder_layer() -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(WIDTH, 2, 16, dropout=0.0, batch_first=True)


def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(4, 5, WIDTH, generator=generator) for _ in range(5)]


class Encoding(LightningModule):
    """Learns to forget its input's last half."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.TransformerEncoder(encoder_layer(), LAYERS, enable_nested_tensor=False)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return functional.mse_loss(self.encoder(batch), batch.roll(1, dims=1))

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(batches(), batch_size=None)  # type: ignore[arg-type]

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=RATE)


def fit(module: LightningModule, *callbacks: Any) -> Trainer:
    trainer = Trainer(callbacks=list(callbacks), max_epochs=2, **QUIET)
    trainer.fit(module)
    return trainer


def test_it_trains_as_one_layer_applied_several_times(tmp_path: Path) -> None:
    module = Encoding()
    layer = copy.deepcopy(module.encoder.layers[0]).train()
    optimizer = torch.optim.Adam(layer.parameters(), lr=RATE)
    for batch in batches() * 2:
        output = batch
        for _ in range(LAYERS):
            output = layer(output)
        optimizer.zero_grad()
        functional.mse_loss(output, batch.roll(1, dims=1)).backward()
        optimizer.step()
    trainer = fit(module, ShareLayers("encoder.layers.*"))
    shared = dict(module.encoder.layers[0].named_parameters())
    assert len(list(module.parameters())) == len(shared)
    for one in module.encoder.layers:
        for name, parameter in one.named_parameters():
            assert parameter is shared[name]
            torch.testing.assert_close(parameter, layer.get_parameter(name), rtol=1e-4, atol=1e-5)
    assert len(trainer.optimizers[0].param_groups[0]["params"]) == len(shared)
    trainer.save_checkpoint(tmp_path / "one.ckpt", weights_only=True)
    loaded = load_from_checkpoint(Encoding, tmp_path / "one.ckpt")
    assert len(list(loaded.parameters())) == len(shared)
    inputs = batches()[0]
    assert torch.equal(loaded.eval().encoder(inputs), module.eval().encoder(inputs))


def test_twelve_layers_have_the_parameters_of_one_as_in_albert() -> None:
    # base size: 85 million parameters in BERT's layers, 7 million in ALBERT's (table 1 gives 108
    # and 12 million with the embeddings)
    with torch.device("meta"):
        layer = nn.TransformerEncoderLayer(768, 12, 3072, batch_first=True)
        net = nn.TransformerEncoder(layer, 12, enable_nested_tensor=False)
    before = sum(parameter.numel() for parameter in net.parameters())
    share_layers(net, "layers.*")
    after = sum(parameter.numel() for parameter in net.parameters())
    assert (before // 10**6, after // 10**6) == (85, 7)
    assert before == 12 * after


def test_running_statistics_stay_each_layers_own() -> None:
    net = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)) for _ in range(2)))
    share_layers(net, "*")
    assert net[0][1].weight is net[1][1].weight
    assert net[0][1].running_mean is not net[1][1].running_mean
    inputs = torch.randn(16, 4)
    net(inputs)
    for layer in net:
        inputs = layer[0](inputs)
        torch.testing.assert_close(layer[1].running_mean, 0.1 * inputs.mean(0))
        inputs = functional.batch_norm(inputs, None, None, training=True)


def test_only_the_outermost_matches_count() -> None:
    net = nn.TransformerEncoder(encoder_layer(), LAYERS, enable_nested_tensor=False)
    pairs = share_layers(net, "layers.*")
    inside = len(list(net.layers[0].parameters()))
    assert len(pairs) == (LAYERS - 1) * inside
    assert pairs[0] == ("layers.1.self_attn.in_proj_weight", "layers.0.self_attn.in_proj_weight")
    net = nn.TransformerEncoder(encoder_layer(), LAYERS, enable_nested_tensor=False)
    assert [first for first, _ in share_layers(net, "layers.*.linear1")] == [
        f"layers.{layer}.linear1.{name}" for layer in (1, 2) for name in ("weight", "bias")
    ]
    assert net.layers[2].linear2.weight is not net.layers[0].linear2.weight


def test_layers_without_parameters_are_left_out() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3), nn.Dropout(0.1))
    assert share_layers(net, "*") == [("2.weight", "0.weight"), ("2.bias", "0.bias")]
    assert share_layers(net, "*") == []


@pytest.mark.parametrize(
    ("others", "why"),
    [
        ([nn.Linear(3, 3), nn.Conv1d(3, 3, 1)], "matches 0 and 2, .*a Linear and a Conv1d"),
        (
            [nn.Linear(3, 3), nn.Linear(3, 3, bias=False)],
            "matches 0 and 2, .*their own part is Linear with weight, bias and Linear with weight",
        ),
        ([nn.Linear(3, 5)], r"1.weight and 0.weight .*shapes are \(5, 3\) and \(3, 3\)"),
        ([nn.Linear(3, 3).half()], "dtypes are torch.float16 and torch.float32"),
        ([nn.Linear(3, 3).requires_grad_(False)], "requires_grad are False and True"),
    ],
)
def test_several_structures_are_refused_and_nothing_changed(
    others: list[nn.Module], why: str
) -> None:
    net = nn.Sequential(nn.Linear(3, 3), *others)
    before = list(net.parameters())
    with pytest.raises(ArgumentError, match=why):
        share_layers(net, "*")
    assert all(one is other for one, other in zip(net.parameters(), before, strict=True))


def test_parts_of_another_class_are_found_inside() -> None:
    net = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 3, 1)), nn.Sequential(nn.ConvTranspose2d(3, 3, 1))
    )
    with pytest.raises(ArgumentError, match=r"their 0 is Conv2d with .* and ConvTranspose2d with"):
        share_layers(net, "*")


def test_an_unknown_name_is_refused_and_the_technique_named() -> None:
    with pytest.raises(TechniqueError, match=r"ShareLayers\(.*no module's name matches 'decoder"):
        fit(Encoding(), ShareLayers("decoder.*"))


def test_a_single_layer_is_no_effect() -> None:
    with pytest.warns(NoEffectWarning, match="fewer than two"):
        fit(Encoding(), ShareLayers("encoder.layers.1"))


def test_layers_with_parametrizations_can_share() -> None:
    net = nn.Sequential(*(weight_norm(nn.Linear(3, 3)) for _ in range(3)))
    assert len(share_layers(net, "*")) == 6
    assert len(list(net.parameters())) == 3
    torch.testing.assert_close(net[2].weight, net[0].weight, rtol=0, atol=0)


def test_other_parametrizations_are_another_structure() -> None:
    net = nn.Sequential(spectral_norm(nn.Linear(3, 3)), orthogonal(nn.Linear(3, 3)))
    with pytest.raises(
        ArgumentError, match=r"a Linear with SpectralNorm and a Linear with Orthogonal"
    ):
        share_layers(net, "*")
