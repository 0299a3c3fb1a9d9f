"""How many multiply-adds a module needs."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lightning_dlopt.structure.summaries.example import Example, call, evaluating

_OWNER = "count_multiply_adds"


def _per_element(shape: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * math.prod(shape)


def _of_matrix(_: Any, matrix: Sequence[int], *__: Any, **___: Any) -> int:
    return 2 * math.prod(matrix)


def _of_batches(_: Any, left: Sequence[int], right: Sequence[int], *__: Any, **___: Any) -> int:
    return 2 * math.prod(left) * right[-1]


#: What torch's counter leaves out: products with vectors, and sums of products.
_LEFT_OUT = {
    torch.ops.aten.addbmm: _of_batches,
    torch.ops.aten.dot: _per_element,
    torch.ops.aten.vdot: _per_element,
    torch.ops.aten.mv: _per_element,
    torch.ops.aten.addmv: _of_matrix,
}


def count_multiply_adds(module: nn.Module, example: Example) -> int:
    """Return the multiply-adds of one call of ``module`` in evaluation.

    Counted are the products of matrices and vectors that are computed, by torch's own
    ``FlopCounterMode``: fully connected, convolutional, recurrent and attention layers, whatever
    functions they are called by. Not counted are additions of biases, norms, activations, poolings
    and other work on single values, nor ``Bilinear``, ``cdist`` and layers with 8-bit weights.
    Layers that are shared count as often as they are called. Weights that a mask holds at zero are
    multiplied all the same, and count, as do the zeros of sparse tensors.

    Torch counts nothing where one kernel does a whole layer's work, as for recurrent layers and
    encoder layers; such kernels are avoided while it counts, and compiled modules run as written.

    Args:
        module: is left as it was.
        example: its argument, a tuple of its arguments, or a dict of its keyword arguments, on its
            device. The number counts for all samples in it.

    Raises:
        ArgumentError, ArgumentTypeError: if the module can't be called with the example.

    Example:
        >>> count_multiply_adds(nn.Conv2d(3, 8, 3), torch.zeros(2, 3, 10, 10))  # 2·8·8·8·27
        27648
    """
    counter = FlopCounterMode(display=False, custom_mapping=_LEFT_OUT)
    with evaluating(module, _OWNER), _separate_products(), counter:
        call(module, example, _OWNER)
    return counter.get_total_flops() // 2


@contextmanager
def _separate_products() -> Iterator[None]:
    """Keep torch from kernels that do several products in one."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    # not by their `flags`, which would change precisions, too
    backends: list[Any] = [torch.backends.mkldnn, torch.backends.cudnn]
    before = [backend.enabled for backend in backends]
    stance = torch.compiler.set_stance("force_eager")
    with sdpa_kernel(SDPBackend.MATH), stance:
        try:
            torch.backends.mha.set_fastpath_enabled(False)
            for backend in backends:
                backend.enabled = False
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast_path)
            for backend, enabled in zip(backends, before, strict=True):
                backend.enabled = enabled
