"""A self-attention network over texts and over the patches of images."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_dlopt.core.checks import check_choice, check_integer, check_number
from lightning_dlopt.core.errors import ArgumentError
from lightning_dlopt.structure.networks.embedding import (
    PatchEmbedding,
    build_embedding,
    masked_mean,
)


class AttentionNet(nn.Module):
    """Embedded tokens or patches with their positions, transformer layers, and a linear layer.

    Positions are learned vectors. The layers are torch's ``TransformerEncoderLayer`` with the
    normalization first and GELU, four times as wide inside; its attention is torch's
    ``scaled_dot_product_attention``. How far a text is padded changes nothing: attention and mean
    leave padding out.

    The layers are those of A. Vaswani et al., Attention Is All You Need (2017, arXiv:1706.03762),
    but for the learned positions, the place of the normalization and the activation. Images are
    read as in A. Dosovitskiy et al., An Image is Worth 16x16 Words (2020, arXiv:2010.11929), where
    the class token has a position, too.

    When:
        Much data, or a long run; sequences in which far places matter to each other.

    When not:
        Little data from scratch: of images it learns slowest of these networks. Very long
        sequences, for attention's work grows with the square of the length.

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
        image_size: in place of ``vocab_size`` the images' ``[channels, height, width]``.
        patch: the side of the square patches that images are cut into, at least 1; height and
            width are multiples of it.
        pool: what the output is computed from: ``"mean"``, the mean over tokens or patches, or
            ``"token"``, a learned vector that stands before them and attends to them.

    Shape:
        Token ids ``(batch, length)``, or images ``(batch, channels, height, width)``; the output is
        ``(batch, num_classes)``, without an activation. Of a text without any token the mean leaves
        only the biases.

    Raises:
        ArgumentError: if an argument is outside its range, a batch is longer than ``max_length``,
            or images have another size.

    Example:
        >>> AttentionNet(100, 3, width=8, heads=2)(torch.tensor([[5, 6, 7], [8, 0, 0]])).shape
        torch.Size([2, 3])
        >>> AttentionNet(image_size=[1, 28, 28], pool="token")(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        vocab_size: int | None = None,
        num_classes: int = 10,
        width: int = 128,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.0,
        max_length: int = 256,
        pad_id: int = 0,
        image_size: Sequence[int] | None = None,
        patch: int = 4,
        pool: str = "mean",
    ) -> None:
        super().__init__()
        width = check_integer(self, "width", width, "[1, inf)")
        layers = check_integer(self, "layers", layers, "[1, inf)")
        heads = check_integer(self, "heads", heads, "[1, inf)")
        if width % heads:
            raise ArgumentError(f"AttentionNet: width={width} must be a multiple of heads={heads}")
        rate = check_number(self, "dropout", dropout, "[0, 1)")
        pool = check_choice(self, "pool", pool, ["mean", "token"])
        self.num_classes = check_integer(self, "num_classes", num_classes, "[1, inf)")
        self.max_length = check_integer(self, "max_length", max_length, "[1, inf)")
        self.embedding = build_embedding(self, width, vocab_size, pad_id, image_size, patch)
        if isinstance(self.embedding, PatchEmbedding):
            self.max_length = self.embedding.length
        self.vocab_size, self.pad_id = vocab_size, pad_id
        self.positions = nn.Parameter(torch.randn(self.max_length, width) * 0.02)
        self.class_token = nn.Parameter(torch.randn(width) * 0.02) if pool == "token" else None
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
        """Return the logits of token ids, or of images."""
        values: Tensor = self.embedding(tokens)
        length = values.shape[1]
        if length > self.max_length:
            raise ArgumentError(
                f"AttentionNet: the batch is {length} tokens long, but max_length="
                f"{self.max_length}: give the network and the data the same max_length"
            )
        values = values + self.positions[:length]
        real = self.embedding.real(tokens)
        if self.class_token is not None:
            values = torch.cat([self.class_token.expand(values.shape[0], 1, -1), values], dim=1)
            real = None if real is None else functional.pad(real, (1, 0), value=True)
        if 0 in values.shape:  # torch's attention refuses them
            return self.output.bias.expand(len(tokens), -1).clone()
        hidden = None if real is None else _hidden(real)
        values = self.dropout(values)
        for layer in self.layers:
            values = layer(values, src_key_padding_mask=hidden)
        values = self.norm(values)
        pooled = masked_mean(values, real) if self.class_token is None else values[:, 0]
        logits: Tensor = self.output(self.dropout(pooled))
        return logits


def _hidden(real: Tensor) -> Tensor:
    """Return where attention mustn't look.

    A text without any token attends to its first padding, since attention to nothing would be NaN.
    """
    first = torch.arange(real.shape[1], device=real.device) == 0
    return ~(real | (first & ~real.any(1, keepdim=True)))
