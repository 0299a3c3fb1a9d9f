"""What blurring, ghost batch normalization and weight standardization share, in whole networks."""

import copy
import io
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision import models

from lightning_dlopt import (
    BlurPool,
    GhostBatchNorm,
    SqueezeExcite,
    WeightStandardization,
    blur_pool,
    ghost_batch_norm,
    load_from_checkpoint,
    standardize_weights,
)
from lightning_dlopt.core import CheckpointError, NoEffectWarning, TechniqueError
from lightning_dlopt.structure.surgery import Surgery
from tests.quiet import QUIET

Change = Callable[[nn.Module], list[str]]


def ghost_of_four(module: nn.Module) -> list[str]:
    return ghost_batch_norm(module, 4)


CHANGES: list[Change] = [blur_pool, ghost_of_four, standardize_weights]


def all_three(module: nn.Module) -> list[str]:
    return [name for change in CHANGES for name in change(module)]


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": lambda: models.resnet18(num_classes=5),
    "mobilenet_v3_small": lambda: models.mobilenet_v3_small(num_classes=5, dropout=0.0),
}


def built(name: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return NETWORKS[name]()


@pytest.mark.parametrize(
    ("name", "change", "count"),
    [
        # three first convolutions of a stage, their three shortcuts, and the pooling
        ("resnet18", blur_pool, 7),
        ("resnet18", ghost_of_four, 20),
        ("resnet18", standardize_weights, 20),
        # the five strides less the first one, which sees the image
        ("mobilenet_v3_small", blur_pool, 4),
        ("mobilenet_v3_small", ghost_of_four, 34),
        ("mobilenet_v3_small", standardize_weights, 52),
    ],
)
def test_whole_networks(name: str, change: Change, count: int) -> None:
    plain = built(name)
    network = copy.deepcopy(plain)
    before = {key: id(parameter) for key, parameter in network.named_parameters()}
    assert len(change(network)) == count
    assert {key: id(parameter) for key, parameter in network.named_parameters()} == before
    network.load_state_dict(plain.state_dict())  # as weights from elsewhere
    images = torch.rand(8, 3, 64, 64)
    # in training, where every one of the three shows
    left, right = network(images), plain(images)
    assert left.shape == right.shape
    assert left.isfinite().all()
    assert not torch.allclose(left, right)
    left.square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_copies_pickles_exports_and_compiles(name: str, fresh_compiler: None) -> None:
    network, images = built(name), torch.rand(8, 3, 64, 64)
    all_three(network)
    network(images)  # statistics of its own
    network.eval()
    expected = network(images)
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(twin(images), expected)
        assert [type(part) for part in twin.modules()] == [type(p) for p in network.modules()]
    batch = torch.export.Dim("batch", min=2, max=64)
    exported = torch.export.export(network, (images,), dynamic_shapes=({0: batch},)).module()
    torch.testing.assert_close(exported(images), expected)
    torch.testing.assert_close(exported(images[:3]), network(images[:3]))
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), expected)


def test_onnx_computes_the_same() -> None:
    network = nn.Sequential(
        nn.Conv2d(16, 8, 3, stride=2), nn.BatchNorm2d(8), nn.MaxPool2d(3, 2, ceil_mode=True)
    )
    all_three(network)
    images = torch.rand(8, 16, 18, 17)
    network(images)
    network.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(network, (images,), dynamo=True, verbose=False)
    assert program is not None
    file = io.BytesIO()
    program.save(file)
    session = onnxruntime.InferenceSession(file.getvalue())
    (output,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    np.testing.assert_allclose(output, network(images).detach().numpy(), rtol=1e-4, atol=1e-5)


class Module(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        shared = nn.Conv2d(16, 16, 3, stride=2, padding=1)
        self.net = nn.Sequential(
            nn.Conv2d(2, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            shared,
            shared,
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, 2),
        )

    def loss(self, batch: Any) -> Tensor:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test_loss", self.loss(batch))

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=0.01)


def loader() -> Any:
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(16, 2, 9, 9, generator=generator)
    return DataLoader(TensorDataset(images, torch.arange(16) % 2), batch_size=8)


def fit(module: Module, *callbacks: Any, **arguments: Any) -> Trainer:
    settings = {**QUIET, "max_epochs": 2, "devices": 1, **arguments}
    trainer = Trainer(callbacks=list(callbacks), **settings)
    trainer.fit(module, loader())
    return trainer


TECHNIQUES: dict[str, Callable[[], list[Surgery]]] = {
    "BlurPool": lambda: [BlurPool()],
    "GhostBatchNorm": lambda: [GhostBatchNorm(4)],
    "WeightStandardization": lambda: [WeightStandardization()],
    "all": lambda: [
        WeightStandardization(),
        SqueezeExcite(min_channels=16, target=["net.3"]),
        BlurPool(),
        GhostBatchNorm(4),
    ],
}
OWN = {"BlurredConv2d", "GhostBatchNorm2d", "StandardizedConv2d", "StandardizedBlurredConv2d"}


def classes(module: nn.Module) -> list[str]:
    return [type(part).__name__ for part in module.modules()]


@pytest.mark.parametrize("weights_only", [False, True])
@pytest.mark.parametrize("name", TECHNIQUES)
def test_a_checkpoint_brings_the_model_back(name: str, weights_only: bool, tmp_path: Path) -> None:
    saving = ModelCheckpoint(dirpath=tmp_path, save_weights_only=weights_only)
    module = Module()
    trainer = fit(module, *TECHNIQUES[name](), saving, enable_checkpointing=True)
    assert OWN & set(classes(module))
    path = saving.best_model_path
    torch.load(path, weights_only=True)
    rebuilt = load_from_checkpoint(Module, path)
    assert classes(rebuilt) == classes(module)
    images = next(iter(loader()))[0]
    assert (rebuilt.eval().net(images) - module.eval().net(images)).abs().max() == 0
    (expected,) = trainer.test(module, loader(), verbose=False)
    again = Trainer(callbacks=TECHNIQUES[name](), **QUIET, devices=1)
    assert again.test(Module(), loader(), ckpt_path=path, verbose=False) == [expected]


@pytest.mark.parametrize("name", TECHNIQUES)
def test_a_second_fit_and_a_second_setup_change_nothing_further(name: str) -> None:
    module, techniques = Module(), TECHNIQUES[name]()
    fit(module, *techniques)
    once = classes(module)
    fit(module, *techniques)
    fit(module, *TECHNIQUES[name]())
    assert classes(module) == once


@pytest.mark.parametrize("name", ["BlurPool", "WeightStandardization"])
def test_a_shared_layer_is_changed_once_and_stays_shared(name: str) -> None:
    module = Module()
    with warnings.catch_warnings():
        warnings.simplefilter("error", NoEffectWarning)
        fit(module, *TECHNIQUES[name]())
    assert module.net[3] is module.net[4]
    assert type(module.net[3]).__name__ in OWN


@pytest.mark.parametrize("technique", [BlurPool, GhostBatchNorm, WeightStandardization])
def test_a_pattern_that_matches_nothing_is_refused(technique: Any) -> None:
    module = Module()
    before = classes(module)
    message = rf"{technique.__name__}\(target=\['nett'\]\): no module's name matches 'nett'"
    with pytest.raises(TechniqueError, match=message):
        fit(module, technique(target=["nett"]))
    assert classes(module) == before


@pytest.mark.parametrize("technique", [BlurPool, GhostBatchNorm, WeightStandardization])
def test_a_target_of_other_layers_is_told(technique: Any) -> None:
    module = Module()
    before = classes(module)
    with pytest.warns(NoEffectWarning, match=f"{technique.__name__}.* has no effect"):
        fit(module, technique(target=["net.7"]))
    assert classes(module) == before


@pytest.mark.parametrize("technique", [BlurPool, GhostBatchNorm, WeightStandardization])
def test_a_plan_that_does_not_fit_changes_nothing(technique: Any) -> None:
    network = nn.Sequential(nn.Conv2d(16, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU())
    before = classes(network)
    right = "1" if technique is GhostBatchNorm else "0"
    for wrong, there in (("2", "ReLU"), ("5", "missing")):
        plan = {"layers": [right, wrong], "size": 4, "eps": 1e-6}
        message = f"{technique.__name__}: the checkpoint has a changed layer '{wrong}'.*{there}"
        with pytest.raises(CheckpointError, match=message):
            technique.redo(network, plan)
        assert classes(network) == before


def test_hooks_and_kept_optimizers_go_on() -> None:
    layer = nn.Conv2d(16, 16, 3, stride=2)
    optimizer, seen = torch.optim.SGD(layer.parameters(), lr=1.0), []
    layer.register_forward_hook(lambda *_: seen.append(1))
    all_three(layer)
    before = layer.weight.detach().clone()
    layer(torch.randn(2, 16, 7, 7)).square().sum().backward()
    optimizer.step()
    assert seen == [1]
    assert not torch.equal(layer.weight, before)
