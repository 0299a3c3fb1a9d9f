"""Removing channels from well-known models: convolutions of all kinds, and transformers."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import models  # type: ignore[import-untyped]
from torchvision.models.convnext import CNBlockConfig  # type: ignore[import-untyped]

from lightning_dlopt.structure import AttentionNet, ConvNet
from lightning_dlopt.structure.channels.choose import Shrinkage, choose_channels, shrink_
from lightning_dlopt.structure.channels.widths import named_tensors, reshape_to
from lightning_dlopt.structure.summaries.multiply_adds import count_multiply_adds


class Mixed(nn.Module):
    """Layers that the other models don't have, and a skip that is concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 32, 3, 2, 1)
        self.norm = nn.InstanceNorm2d(32, affine=True)
        self.slope = nn.PReLU(32)
        self.deep = nn.Conv2d(32, 64, 3, 2, 1, groups=4)
        self.scale = nn.Parameter(torch.rand(64, 1, 1))
        self.up = nn.ConvTranspose2d(64, 32, 4, 2, 1)
        self.grouped_up = nn.ConvTranspose2d(64, 32, 4, 2, 1, groups=2)
        self.gate = nn.Conv2d(32, 64, 1)
        self.rows = nn.Linear(32, 48)
        self.last = nn.Linear(48, 7)

    def forward(self, values: Tensor) -> Any:
        """Return a result for each image."""
        shallow = self.slope(self.norm(self.down(values)))
        up = self.up(self.deep(shallow).relu() * self.scale)
        both = self.grouped_up(torch.cat([shallow, up], 1))
        first, second = self.gate(both).chunk(2, 1)
        return self.last(self.rows((first * second.sigmoid()).mean((2, 3))).tanh())


def images(size: int, channels: int = 3) -> Tensor:
    """Return two images."""
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(1))


def convnext() -> Any:
    """A small ConvNeXt: depthwise convolutions, norms over channels, scaled layers."""
    settings = [CNBlockConfig(32, 64, 2), CNBlockConfig(64, 128, 2), CNBlockConfig(128, None, 1)]
    return models.ConvNeXt(settings, num_classes=7)


def vision_transformer() -> Any:
    """A small ViT: a class token, positions, attention, and a width that its code looks up."""
    net = models.VisionTransformer(16, 4, 2, 4, 64, 128, num_classes=7)
    nn.init.normal_(net.heads.head.weight)
    return net


TOKENS = torch.tensor([[5, 6, 7, 0], [8, 3, 0, 0]])
#: How to build each, its example, and whose channels run through no norm over channels.
MODELS: dict[str, tuple[Callable[[], Any], Tensor, Any]] = {
    "resnet18": (partial(models.resnet18, num_classes=7), images(32), "all"),
    "mobilenet": (partial(models.mobilenet_v3_small, num_classes=7), images(32), "all"),
    "densenet": (
        partial(models.DenseNet, 16, (2, 3, 2), 32, num_classes=7),
        images(32),
        "all",
    ),
    "regnet": (partial(models.regnet_x_400mf, num_classes=7), images(32), "all"),
    "googlenet": (
        partial(models.googlenet, num_classes=7, aux_logits=False, init_weights=False),
        images(32),
        "all",
    ),
    "convnext": (convnext, images(32), ["features.*.block.3"]),
    "vit": (vision_transformer, images(16), ["encoder.layers.*.mlp.0"]),
    "convnet": (partial(ConvNet, [1, 32, 64, 64], 7), images(16, 1), "all"),
    "mixed": (Mixed, images(16), "all"),
    "attention": (partial(AttentionNet, 20, 3, width=64), TOKENS, ["layers.*.linear1"]),
}


def built(name: str, seed: int = 0) -> Any:
    """Return a model with random statistics and biases, in double precision, in evaluation."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = MODELS[name][0]().double().eval()
        for tensor_name, tensor in named_tensors(model).items():
            if tensor_name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif tensor_name.endswith(("running_mean", "bias")):
                tensor.detach().normal_(std=0.1)
            elif tensor_name.endswith("layer_scale"):  # starts at a millionth
                tensor.detach().fill_(1)
    return model


def example_of(name: str) -> Tensor:
    """Return a model's example in double precision, if it isn't of integers."""
    example = MODELS[name][1]
    return example.double() if example.is_floating_point() else example


def choose(model: Any, name: str, **arguments: Any) -> Shrinkage:
    """Choose on the model's example."""
    return choose_channels(model, lambda net: net(example_of(name)), **arguments)


@torch.no_grad()
def zeroed(model: nn.Module, chosen: Shrinkage) -> nn.Module:
    """Return a copy of a whole model in which all that was removed is zero instead."""
    dense = copy.deepcopy(model)
    tensors = named_tensors(dense)
    for name, dims in chosen.kept.items():
        for dim, kept in dims:
            mask = torch.zeros(tensors[name].shape[dim], dtype=torch.float64)
            mask[kept] = 1
            tensors[name].mul_(mask.view([-1] + [1] * (tensors[name].dim() - dim - 1)))
    return dense


@pytest.mark.parametrize("name", MODELS)
def test_the_rest_is_what_the_whole_is_with_zeros(name: str) -> None:
    model = built(name)
    chosen = choose(model, name, speed_up=1.2, target=MODELS[name][2])
    with torch.no_grad():
        before, dense = model(example_of(name)), zeroed(model, chosen)(example_of(name))
        shrink_(model, chosen)
        after = model(example_of(name))
    scale = float(before.abs().max())
    assert float((before - after).abs().max()) > 1e-6 * scale  # something was there
    torch.testing.assert_close(after, dense, rtol=0, atol=1e-10 * scale)


@pytest.mark.parametrize("name", MODELS)
def test_twice_as_fast_with_aligned_widths_and_loaded_from_the_plan(name: str) -> None:
    model, example = built(name), example_of(name)
    whole = dict(copy.deepcopy(model).named_modules())
    before = count_multiply_adds(model, example)
    chosen = choose(model, name)
    replaced = shrink_(model, chosen)
    assert before / count_multiply_adds(model, example) == pytest.approx(2, rel=0.05)
    for part_name, part in model.named_modules():
        for key in ("out_channels", "out_features", "in_features", "num_features", "embed_dim"):
            now, once = getattr(part, key, 0), getattr(whole[part_name], key, 0)
            assert now == once or now % 8 == 0, f"{part_name}.{key}: {once} -> {now}"
    assert {id(new) for new in replaced.values()} <= {id(p) for p in model.parameters()}

    fresh = built(name, seed=1)
    reshape_to(fresh, chosen.plan)
    fresh.load_state_dict(model.state_dict())
    assert repr(fresh) == repr(model)
    with torch.no_grad():
        assert torch.equal(fresh(example), model(example))
    model.train()(example).sum().backward()
    assert all(p.grad.shape == p.shape for p in model.parameters() if p.grad is not None)


def test_a_second_pruning_goes_on_from_the_first() -> None:
    model = built("convnet")
    first = choose(model, "convnet", speed_up=1.5)
    shrink_(model, first)
    second = choose(model, "convnet", speed_up=1.5)
    for name, (before, _) in second.plan["tensors"].items():
        if name in first.plan["tensors"]:
            assert before == first.plan["tensors"][name][1]
    assert second.speed_up == pytest.approx(1.5, rel=0.05)
