"""Removing hidden units of recurrent layers, and heads of attention."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_dlopt.core.errors import ArgumentError
from lightning_dlopt.structure import RecurrentNet
from lightning_dlopt.structure.channels.choose import choose_channels, prune_channels, shrink_
from lightning_dlopt.structure.channels.widths import reshape_to

VALUES = torch.randn(3, 6, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
STRONG = [0, 3, 4, 5, 9, 10, 11, 15]


class Recurrent(nn.Module):
    """A recurrent layer of 16 units between two fully connected ones."""

    def __init__(self, kind: Any, layers: int, bidirectional: bool) -> None:
        super().__init__()
        self.first = nn.Linear(10, 12)
        self.layer: Any = kind(
            12,
            16,
            layers,
            batch_first=True,
            bidirectional=bidirectional,
            dropout=0.5 * (layers > 1),
        )
        self.last = nn.Linear(16 * (1 + bidirectional), 3)

    def forward(self, values: Tensor) -> Any:
        """Return a result for each step."""
        return self.last(self.layer(self.first(values))[0])


class LastState(Recurrent):
    """The same, with the result from the last layer's last state."""

    def forward(self, values: Tensor) -> Any:
        """Return one result."""
        state = self.layer(self.first(values))[1]
        return self.last((state[0] if isinstance(state, tuple) else state)[-1])


class Packed(Recurrent):
    """The same on sequences of different lengths."""

    def forward(self, values: Tensor) -> Any:
        """Return a result for each step."""
        packed = nn.utils.rnn.pack_padded_sequence(
            self.first(values), torch.tensor([6, 4, 3]), batch_first=True
        )
        outputs, _ = nn.utils.rnn.pad_packed_sequence(self.layer(packed)[0], batch_first=True)
        return self.last(outputs)


@torch.no_grad()
def with_idle_units(net: Any) -> Any:
    """Let half of the units have no effect, and weigh little, without being zero themselves."""
    weak = [unit for unit in range(16) if unit not in STRONG]
    gates = len(net.layer.weight_hh_l0) // 16
    for name, weight in net.layer.named_parameters():
        weight.view(gates, 16, *weight.shape[1:])[:, weak] *= 1e-3
        if "weight_hh" in name:
            weight[:, weak] = 0
        elif "weight_ih" in name and "l0" not in name:
            weight.view(len(weight), -1, 16)[:, :, weak] = 0
    net.last.weight.view(3, -1, 16)[:, :, weak] = 0
    return net


@pytest.mark.parametrize(
    ("build", "bidirectional"),
    [(Recurrent, False), (Recurrent, True), (LastState, False), (Packed, False), (Packed, True)],
)
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_idle_units_go_and_nothing_changes(
    kind: Any, layers: int, build: Any, bidirectional: bool
) -> None:
    net = with_idle_units(build(kind, layers, bidirectional).double().eval())
    before, size = net(VALUES), sum(p.numel() for p in net.layer.parameters())
    # of the layer's width the rest follows, so that the target is what half of the units leave
    half = kind(12, 8, layers, bidirectional=bidirectional)
    saved = size - sum(p.numel() for p in half.parameters()) + 3 * 8 * (1 + bidirectional)
    whole = sum(p.numel() for p in net.parameters())
    chosen = prune_channels(
        net,
        VALUES,
        by="parameters",
        speed_up=whole / (whole - saved),
        target=["layer"],
        align=4,
    )
    assert net.layer.hidden_size == 8
    hidden = dict(chosen.kept["layer.weight_hh_l0"])
    assert hidden[1].tolist() == STRONG
    assert hidden[0].tolist() == [
        unit + gate for gate in range(0, len(net.layer.weight_hh_l0) * 2, 16) for unit in STRONG
    ]
    torch.testing.assert_close(net(VALUES), before, rtol=0, atol=1e-12)

    fresh = build(kind, layers, bidirectional).double().eval()
    reshape_to(fresh, chosen.plan)
    fresh.load_state_dict(net.state_dict())
    assert torch.equal(fresh(VALUES), net(VALUES))
    fresh.train()(VALUES).sum().backward()


@pytest.mark.parametrize("bidirectional", [False, True])
def test_input_features_go(bidirectional: bool) -> None:
    net = Recurrent(nn.LSTM, 2, bidirectional).double().eval()
    dense = copy.deepcopy(net)
    chosen = prune_channels(net, VALUES, speed_up=1.1, target=["first"], align=2)
    assert net.layer.input_size < 12
    kept = chosen.kept["first.weight"][0][1]
    gone = [i for i in range(12) if i not in kept]
    with torch.no_grad():
        dense.first.weight[gone] = 0
        dense.first.bias[gone] = 0
    torch.testing.assert_close(net(VALUES), dense(VALUES), rtol=0, atol=1e-12)


def test_projections_stay() -> None:
    class Projected(Recurrent):
        def __init__(self) -> None:
            super().__init__(nn.LSTM, 1, False)
            self.layer = nn.LSTM(12, 32, batch_first=True, proj_size=16)

    with pytest.raises(ArgumentError, match="proj_size"):
        choose_channels(Projected().double(), lambda net: net(VALUES), target=["layer"])


def test_the_own_network_gets_narrower_in_all_its_layers() -> None:
    tokens = torch.tensor([[5, 6, 7, 0], [8, 3, 0, 0]])
    net = RecurrentNet(20, 3, width=64, layers=2)
    chosen = prune_channels(net, tokens, speed_up=3)
    assert chosen.speed_up == pytest.approx(3, rel=0.05)
    assert net.embedding.embedding_dim < 64
    hidden = [layer.hidden_size for layer in [*net.forwards, *net.backwards]]
    assert sum(hidden) < 4 * 32
    assert all(width % 8 == 0 for width in [*hidden, net.embedding.embedding_dim])
    assert net(tokens).shape == (2, 3)


class Attentive(nn.Module):
    """Attention of four heads without norms."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(10, 32)
        self.attention: Any = nn.MultiheadAttention(32, 4, batch_first=True, add_bias_kv=True)
        self.last = nn.Linear(32, 3)

    def forward(self, values: Tensor) -> Any:
        """Return a result for each step."""
        values = self.first(values)
        return self.last(values + self.attention(values, values, values)[0])


def test_heads_go_as_a_whole() -> None:
    net = Attentive().double().eval()
    with torch.no_grad():
        for parameter in net.attention.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(0))
        # the second head weighs least
        net.attention.in_proj_weight.view(3, 4, 8, 32)[:, 1] *= 0.01
    dense = copy.deepcopy(net)
    chosen = choose_channels(net, lambda copied: copied(VALUES), speed_up=1.7)
    shrink_(net, chosen)
    assert (net.attention.num_heads, net.attention.head_dim, net.attention.embed_dim) == (3, 8, 24)
    assert net.first.out_features == 24
    # the same with zeros: in torch's own attention, by the heads' rows and columns
    gone = range(8, 16)
    with torch.no_grad():
        for weight in (dense.first.weight, dense.first.bias):
            weight[gone] = 0
        for weight in (dense.attention.out_proj.weight, dense.attention.out_proj.bias):
            weight[gone] = 0
    torch.testing.assert_close(net(VALUES), dense_without_head(dense), rtol=0, atol=1e-10)


@torch.no_grad()
def dense_without_head(net: Attentive) -> Any:
    """Run a net whose second head isn't added."""
    net.attention.out_proj.weight[:, 8:16] = 0
    return net(VALUES)


def test_a_transformer_is_what_its_class_builds_with_fewer_heads_and_features() -> None:
    net: Any = nn.Sequential(
        nn.Linear(10, 64),
        nn.TransformerEncoder(nn.TransformerEncoderLayer(64, 4, 128, batch_first=True), 1),
        nn.Linear(64, 5),
    )
    net.double().eval()
    chosen = prune_channels(net, VALUES, align=16)
    assert chosen.speed_up == pytest.approx(2, rel=0.05)
    width, features = net[0].out_features, net[1].layers[0].linear1.out_features
    heads = net[1].layers[0].self_attn.num_heads
    assert (heads, features % 16) == (width // 16, 0)
    assert width < 64
    layer: Any = nn.TransformerEncoderLayer(width, heads, features, batch_first=True)
    smaller = nn.Sequential(
        nn.Linear(10, width),
        nn.TransformerEncoder(layer, 1, enable_nested_tensor=False),
        nn.Linear(width, 5),
    )
    smaller.double().eval().load_state_dict(net.state_dict())
    assert torch.equal(smaller(VALUES), net(VALUES))
