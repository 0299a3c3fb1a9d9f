"""Layers of many steps as one, for the time in which a module is traced."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from lightning_dlopt.structure.channels.dims import width


class _Opaque(torch.autograd.Function):
    """One step of the graph, whatever a layer does inside."""

    @staticmethod
    def forward(_: Any, shapes: list[list[int]], *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return zeros."""
        return tuple(inputs[0].new_zeros(shape) for shape in shapes)

    @staticmethod
    def backward(_: Any, *grads: Tensor) -> Any:
        """Nothing is ever sent back."""
        raise NotImplementedError


def stand_in(part: nn.Module) -> None:
    """Let a layer of many steps be one in the graph."""
    if isinstance(part, nn.RNNBase):
        vars(part)["forward"] = partial(_recurrent, part)
    elif isinstance(part, nn.MultiheadAttention):
        vars(part)["forward"] = _attention


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Any:
    return _Opaque.apply([list(query.shape)], query, key, value)[0], None


def _recurrent(part: nn.RNNBase, inputs: Any, _: Any = None) -> Any:
    values = inputs.data if isinstance(inputs, PackedSequence) else inputs
    if isinstance(inputs, PackedSequence):
        batch = [int(inputs.batch_sizes[0])]
    elif values.dim() == 3:
        batch = [values.shape[0 if part.batch_first else 1]]
    else:
        batch = []
    layers = part.num_layers * (1 + part.bidirectional)
    sizes = part.proj_size or part.hidden_size, part.hidden_size
    states = [[layers, *batch, size] for size in sizes]
    out = [*values.shape[:-1], width(part, "out")]
    outputs, last, cell = _Opaque.apply([out, *states], values)
    if isinstance(inputs, PackedSequence):
        outputs = PackedSequence(
            outputs, inputs.batch_sizes, inputs.sorted_indices, inputs.unsorted_indices
        )
    return outputs, ((last, cell) if isinstance(part, nn.LSTM) else last)
