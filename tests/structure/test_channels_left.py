"""Channels that stay, targets that can't be met, and modules that can't be pruned."""

import copy
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.utils.prune
from torch import Tensor, nn

from lightning_dlopt.core.errors import ArgumentError, TechniqueError
from lightning_dlopt.structure.channels.choose import (
    Shrinkage,
    choose_channels,
    prune_channels,
    shrink_,
)
from tests.structure.choosing import IMAGES, choose, convolutions, mlp


def test_a_speed_up_of_one_is_nothing() -> None:
    assert choose(mlp(), speed_up=1) == Shrinkage({}, {})


def test_an_unreachable_speed_up_says_what_can_be_reached() -> None:
    with pytest.raises(
        ArgumentError, match=r"speed_up=1000 can't be reached.*largest is [\d.]+"
    ) as e:
        choose(mlp(), speed_up=1000)
    largest = float(str(e.value).split("largest is ")[1].split(";")[0])
    assert choose(mlp(), speed_up=largest).speed_up == pytest.approx(largest, rel=0.05)


def test_widths_too_coarse_for_the_target_are_told() -> None:
    module = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    with pytest.raises(ArgumentError, match=r"speed_up=1.3 can't be met.*it gives 1, 2"):
        choose(module, speed_up=1.3)
    assert choose(module, speed_up=1.3, align=1).speed_up == pytest.approx(1.3, rel=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"speed_up": 0.5}, "speed_up=0.5"),
        ({"speed_up": float("nan")}, "speed_up=nan"),
        ({"align": 0}, "align=0"),
        ({"max_ratio": 1.0}, "max_ratio=1.0"),
        ({"by": "time"}, "by='time'"),
        ({"importance": "random"}, "importance='random'"),
        ({"keep": ["nowhere.*"]}, "nowhere"),
        ({"target": ["nowhere"]}, "nowhere"),
        ({"target": ["4"]}, "target='4'.*outputs"),
        ({"target": ["1"]}, "target='1'"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        choose(mlp(), **arguments)


def test_keep_and_target_say_where() -> None:
    chosen = choose(mlp(), keep=["0"], align=1)
    assert "0.weight" not in chosen.kept
    assert chosen.stayed["0"] == "keep names 0"
    chosen = choose(mlp(), target=["0"], align=1, speed_up=1.5)
    assert set(chosen.kept) == {"0.weight", "0.bias", "2.weight"}


def test_frozen_layers_stay() -> None:
    module = mlp()
    module[2].weight.requires_grad_(False)
    with pytest.raises(ArgumentError, match=r"can't be reached.*2.weight is frozen"):
        choose(module)
    with pytest.raises(ArgumentError, match=r"target='2'.*2.weight is frozen"):
        choose(module, target=["2"])


class Tied(nn.Module):
    """An output layer that has the embedding's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 32)
        self.hidden = nn.Linear(32, 64)
        self.back = nn.Linear(64, 32)
        self.output = nn.Linear(32, 10, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits."""
        values: Tensor = self.embedding(tokens)
        return self.output(values + self.back(self.hidden(values).relu()))  # type: ignore[no-any-return]


def test_shared_weights_stay_shared() -> None:
    module, tokens = Tied(), torch.arange(10).view(2, 5)
    chosen = prune_channels(module, tokens, speed_up=1.5)
    assert module.output.weight is module.embedding.weight
    assert module.hidden.out_features < 64
    assert any("is shared with" in why for why in chosen.stayed.values())
    with pytest.raises(ArgumentError, match="shared"):
        choose_channels(Tied(), lambda net: net(tokens), target=["embedding"])


class HandWritten(nn.Module):
    """Attention written by hand: the heads are only seen in a view."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(32, 96)
        self.out = nn.Linear(32, 32)
        self.up, self.down = nn.Linear(32, 128), nn.Linear(128, 32)
        self.head = nn.Linear(32, 3)

    def forward(self, values: Tensor) -> Tensor:
        """Return logits."""
        q, k, v = (
            part.view(*part.shape[:2], -1, 8).transpose(1, 2)
            for part in self.qkv(values).chunk(3, -1)
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        values = values + self.out(mixed)
        return self.head((values + self.down(self.up(values).relu())).mean(1))  # type: ignore[no-any-return]


def test_what_would_do_something_else_stays() -> None:
    module, values = HandWritten(), torch.randn(2, 5, 32)
    dense = copy.deepcopy(module)
    chosen = prune_channels(module, values, speed_up=1.5)
    assert set(chosen.kept) == {"up.weight", "up.bias", "down.weight"}
    assert "something else" in chosen.stayed["qkv"]
    assert torch.equal(module.qkv.weight, dense.qkv.weight)


def test_a_module_that_cannot_be_traced_is_refused() -> None:
    class Cut(nn.Sequential):
        def forward(self, values: Any) -> Any:
            with torch.no_grad():
                for layer in self:
                    values = layer(values)
            return values

    with pytest.raises(TechniqueError, match="channels of Cut can't be followed"):
        choose_channels(Cut(*mlp()), lambda net: net(torch.ones(2, 4)))


@pytest.mark.parametrize(
    "change",
    [
        nn.utils.parametrizations.weight_norm,
        nn.utils.weight_norm,
        lambda layer: nn.utils.prune.l1_unstructured(layer, "weight", 0.5),
    ],
)
def test_weights_that_are_computed_stay(change: Any) -> None:
    module = nn.Sequential(*mlp(), nn.Tanh(), nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 3))
    change(module[2])
    chosen = prune_channels(module, torch.ones(2, 4), speed_up=1.05, align=1)
    assert set(chosen.kept) == {"6.weight", "6.bias", "8.weight"}
    assert "computed" in chosen.stayed["2"]


def test_outputs_may_be_nested_and_inputs_named() -> None:
    @dataclass
    class Output:
        logits: Tensor
        others: dict[str, Any]

    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.other, self.unused = mlp(), nn.Linear(3, 2), nn.Linear(5, 5)

        def forward(self, values: Tensor, scale: float) -> Output:
            logits = self.body(values) * scale
            return Output(logits, {"other": [self.other(logits)], "count": 3})

    chosen = prune_channels(Nested(), {"values": torch.ones(2, 4), "scale": 2.0})
    assert {name.split(".weight")[0] for name in chosen.kept if "weight" in name} == {
        "body.0",
        "body.2",
        "body.4",
    }
    assert set(chosen.stayed) == {"body.4", "other"}


def test_rms_norms_and_group_norms_get_narrower() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = nn.Linear(4, 64), nn.RMSNorm(64)
            self.gate, self.up, self.down = (
                nn.Linear(64, 128),
                nn.Linear(64, 128),
                nn.Linear(128, 64),
            )
            self.last = nn.Linear(64, 3)

        def forward(self, values: Tensor) -> Any:
            values = self.norm(self.first(values))
            gated = nn.functional.silu(self.gate(values)) * self.up(values)
            return self.last(values + self.down(gated))

    module = Gated()
    chosen = prune_channels(module, torch.ones(2, 4), speed_up=3)
    assert set(chosen.stayed) == {"last"}
    assert module.norm.normalized_shape == (module.first.out_features,)
    assert module.gate.out_features == module.up.out_features == module.down.in_features
    grouped = nn.Sequential(
        nn.Conv2d(3, 64, 3), nn.GroupNorm(4, 64), nn.ReLU(), nn.Conv2d(64, 3, 1)
    )
    left = prune_channels(grouped, IMAGES).kept["0.weight"][0][1]
    assert torch.bincount(left // 16).tolist() == [8] * 4  # of each group as many


def test_a_bare_layer_has_nothing_to_lose() -> None:
    with pytest.raises(ArgumentError, match=r"largest is 1; .* the module \(they are"):
        prune_channels(nn.Linear(4, 64), torch.ones(2, 4))


def test_bad_examples_and_lazy_layers_are_told() -> None:
    with pytest.raises(ArgumentError, match=r"can't be called with the example"):
        prune_channels(mlp(), torch.ones(2, 5))
    with pytest.raises(TechniqueError, match="lazy"):
        prune_channels(nn.Sequential(nn.LazyLinear(8), nn.Linear(8, 2)), torch.ones(2, 4))


def test_without_torch_pruning_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(TechniqueError, match=r"pip install 'lightning-dlopt\[pruning\]'"):
        choose(mlp())


def test_a_compiled_module_is_pruned_as_it_is_written() -> None:
    module = mlp()
    compiled: Any = torch.compile(module, backend="eager")
    chosen = choose_channels(compiled, lambda net: net(torch.ones(2, 4)))
    assert all("_orig_mod" not in name for name in [*chosen.kept, *chosen.plan["parts"]])
    shrink_(compiled, chosen)
    assert torch.equal(compiled(torch.ones(2, 4)), module(torch.ones(2, 4)))


def test_latency_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    # a clock that goes forward by the multiply-adds of what runs, so that nothing is timed
    clock = {"now": 0.0}

    def run(net: nn.Module) -> Tensor:
        clock["now"] += sum(p.numel() for p in net.parameters())
        return net(torch.ones(2, 4))  # type: ignore[no-any-return]

    monkeypatch.setattr("time.perf_counter", lambda: clock["now"])
    module = mlp()
    before = sum(p.numel() for p in module.parameters())
    chosen = choose_channels(module, run, by="latency", speed_up=2.5)
    shrink_(module, chosen)
    assert before / sum(p.numel() for p in module.parameters()) == pytest.approx(2.5, rel=0.05)


def test_a_pruned_module_is_loaded_without_torch_pruning(tmp_path: Path) -> None:
    module = convolutions().eval()
    chosen = prune_channels(module, IMAGES)
    torch.save(
        {"plan": chosen.plan, "state": module.state_dict(), "in": IMAGES, "out": module(IMAGES)},
        tmp_path / "net.pt",
    )
    code = (
        "import sys; sys.modules['torch_pruning'] = None\n"
        "import torch\n"
        "from lightning_dlopt.structure.channels.widths import reshape_to\n"
        "from tests.structure.test_channels import convolutions\n"
        f"saved = torch.load({str(tmp_path / 'net.pt')!r}, weights_only=True)\n"
        "net = convolutions().eval()\n"
        "reshape_to(net, saved['plan'])\n"
        "net.load_state_dict(saved['state'])\n"
        "print(float((net(saved['in']) - saved['out']).detach().abs().max()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0.0"


def test_a_target_that_is_missed_says_which_layers_stay_as_they_are() -> None:
    net = convolutions()
    net[0].requires_grad_(False)
    with pytest.raises(ArgumentError, match=r"can't be met.*as they are: .*0\.weight is frozen"):
        prune_channels(net, IMAGES, speed_up=1.3, align=32)
