"""A self-attention network over texts."""

import torch
from torch import Tensor, nn

from lightning_dlopt.core.checks import check_integer, check_number
from lightning_dlopt.core.errors import ArgumentError
from lightning_dlopt.structure.tokens import TokenEmbedding, masked_mean


class AttentionNet(nn.Module):
    """Embedded tokens and positions, transformer layers, the mean over a text, a linear layer.

    Positions are learned vectors. The layers are torch's ``TransformerEncoderLayer`` with the
    normalization first and GELU, four times as wide inside. How far a text is padded changes
    nothing: attention and mean leave padding out.

    The layers are those of A. Vaswani et al., Attention Is All You Need (2017, arXiv:1706.03762),
    but for the learned positions, the place of the normalization and the activation.

    Args:
        vocab_size: number of token ids, at least 2; the same as the data's.
        num_classes: number of outputs, at least 1.
        width: width of the embedding and of the layers, at least 1.
        layers: number of layers, at least 1.
        heads: attention heads of a layer, at least 1; ``width`` is a multiple of it.
        dropout: the rate of the dropout after the embedding, in the layers and before the output,
            in [0, 1).
        max_length: the longest text that there are positions for, at least 1.
        pad_id: the id of padding, from 0.

    Shape:
        Token ids ``(batch, length)``; the output is ``(batch, num_classes)``, without an
        activation. Of a text without any token only the biases are left.

    Raises:
        ArgumentError: if an argument is outside its range, or a batch is longer than
            ``max_length``.

    Example:
        >>> AttentionNet(100, 3, width=8, heads=2)(torch.tensor([[5, 6, 7], [8, 0, 0]])).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        vocab_size: int,
        num_classes: int,
        width: int = 128,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.0,
        max_length: int = 256,
        pad_id: int = 0,
    ) -> None:
        super().__init__()
        self.vocab_size = check_integer(self, "vocab_size", vocab_size, "[2, inf)")
        self.num_classes = check_integer(self, "num_classes", num_classes, "[1, inf)")
        width = check_integer(self, "width", width, "[1, inf)")
        layers = check_integer(self, "layers", layers, "[1, inf)")
        heads = check_integer(self, "heads", heads, "[1, inf)")
        if width % heads:
            raise ArgumentError(f"AttentionNet: width={width} must be a multiple of heads={heads}")
        rate = check_number(self, "dropout", dropout, "[0, 1)")
        self.max_length = check_integer(self, "max_length", max_length, "[1, inf)")
        self.pad_id = check_integer(self, "pad_id", pad_id, f"[0, {vocab_size})")
        self.embedding = TokenEmbedding(vocab_size, width, padding_idx=pad_id)
        self.positions = nn.Parameter(torch.randn(max_length, width) * 0.02)
        self.dropout = nn.Dropout(rate)
        # one by one, since TransformerEncoder would start with copies of one layer
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width,
                heads,
                dim_feedforward=4 * width,
                dropout=rate,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits."""
        length = tokens.shape[1]
        if length > self.max_length:
            raise ArgumentError(
                f"AttentionNet: the batch is {length} tokens long, but max_length="
                f"{self.max_length}: give the network and the data the same max_length"
            )
        if 0 in tokens.shape:  # torch's attention refuses them
            return self.output.bias.expand(len(tokens), -1).clone()
        real = tokens != self.pad_id
        # a text without any token attends to its first padding, since to nothing would be NaN
        first = torch.arange(length, device=tokens.device) == 0
        hidden = ~(real | (first & ~real.any(1, keepdim=True)))
        values = self.dropout(self.embedding(tokens) + self.positions[:length])
        for layer in self.layers:
            values = layer(values, src_key_padding_mask=hidden)
        pooled = masked_mean(self.norm(values), real)
        logits: Tensor = self.output(self.dropout(pooled))
        return logits
