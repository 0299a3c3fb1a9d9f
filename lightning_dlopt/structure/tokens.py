"""What networks over padded token ids share."""

import torch
from torch import Tensor, nn

from lightning_dlopt.core.errors import ArgumentError


class TokenEmbedding(nn.Embedding):
    """An embedding of token ids that says which id is too large; padding becomes zeros."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the vectors, ``(batch, length, width)``.

        Raises:
            ArgumentError: if an id isn't in the table (on the CPU; other devices have errors of
                their own, and looking would make them wait).
        """
        looks = tokens.device.type == "cpu" and not torch.compiler.is_compiling()
        if looks and tokens.numel():
            low, high = (int(end) for end in tokens.aminmax())
            if low < 0 or high >= self.num_embeddings:
                wrong = low if low < 0 else high
                raise ArgumentError(
                    f"token id {wrong} is outside of the network's table of "
                    f"vocab_size={self.num_embeddings}: give the network and the data the same "
                    "vocab_size"
                )
        return super().forward(tokens)


def masked_mean(values: Tensor, real: Tensor) -> Tensor:
    """Return the mean of ``values`` ``(B, L, W)`` where ``real`` ``(B, L)``; zeros where none is.

    Example:
        >>> values = torch.tensor([[[1.0], [3.0], [8.0]]])
        >>> masked_mean(values, torch.tensor([[True, True, False]]))
        tensor([[2.]])
    """
    weights = real.unsqueeze(2).to(values.dtype)
    return (values * weights).sum(1) / weights.sum(1).clamp(min=1)
