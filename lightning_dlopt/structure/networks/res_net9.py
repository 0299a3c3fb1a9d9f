"""A small residual convolutional network over images and over texts."""

import torch
from torch import Tensor, nn

from lightning_dlopt.core.checks import check_integer, check_number
from lightning_dlopt.structure.networks.embedding import (
    TokenEmbedding,
    build_embedding,
    check_one_input,
)


class ResNet9(nn.Module):
    """Eight convolutions, two pairs of which are residual branches, and a linear layer.

    A convolution to ``width`` channels, then three stages, each of a convolution to twice as many
    channels and a pooling that halves the size (an odd one rounded up); the first and the third
    stage then add what two more convolutions make of it. All convolutions span three places (3 x 3
    in images) and are followed by BatchNorm and ReLU; the maximum over all places comes before the
    linear layer, so images of any size can be given.

    From D. Page, How to Train Your ResNet (2018), whose network trained to 94 % on CIFAR-10 in the
    shortest time of Stanford's DAWNBench; ``ResNet9(3)`` has its 6.57 million parameters. There the
    linear layer has no bias and its output is multiplied by 0.125.

    Texts go through the same network in one dimension, over embedded tokens. How far they are
    padded on the right changes nothing: padding is zero before every convolution, and since nothing
    is below zero after ReLU, no maximum sees it. In training, too: the means and variances of
    BatchNorm are those of the batch's real tokens alone (a batch with fewer than two of them is
    normalized with the running ones). Finding them makes a graphics processor wait.

    When:
        Small images: the most accurate of these networks at an equal number of parameters here.

    When not:
        Texts whose sense is in the order of far words; large photographs, for which it has few
        poolings.

    Args:
        channels: the images' channels, at least 1.
        num_classes: number of outputs, at least 1.
        width: channels of the first convolution, at least 1; the last ones have eight times as
            many.
        vocab_size: in place of ``channels`` the number of token ids, at least 2; the same as the
            data's.
        embedding_width: width of the embedding of tokens, at least 1.
        dropout: the rate of the dropout after the embedding of tokens and before the linear layer,
            in [0, 1).
        pad_id: the id of padding, from 0.

    Shape:
        Images ``(batch, channels, height, width)`` with a height and width of at least 1, or token
        ids ``(batch, length)``; the output is ``(batch, num_classes)``, without an activation. Of a
        text without any token only the biases are left. ``torch.export`` fixes the length of texts
        (by torch's pooling in one dimension), to which shorter ones can be padded.

    Raises:
        ArgumentError: if an argument is outside its range.

    Example:
        >>> ResNet9(channels=1, width=16)(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
        >>> network = ResNet9(vocab_size=100, num_classes=3, width=16)
        >>> network(torch.tensor([[5, 6, 7], [8, 0, 0]])).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        channels: int | None = None,
        num_classes: int = 10,
        width: int = 64,
        vocab_size: int | None = None,
        embedding_width: int = 128,
        dropout: float = 0.0,
        pad_id: int = 0,
    ) -> None:
        super().__init__()
        check_one_input(self, channels=channels, vocab_size=vocab_size)
        width = check_integer(self, "width", width, "[1, inf)")
        self.num_classes = check_integer(self, "num_classes", num_classes, "[1, inf)")
        self.dropout = nn.Dropout(check_number(self, "dropout", dropout, "[0, 1)"))
        self.vocab_size, self.pad_id = vocab_size, pad_id
        self.embedding: nn.Module | None = None
        if channels is not None:
            check_integer(self, "channels", channels, "[1, inf)")
        else:
            channels = check_integer(self, "embedding_width", embedding_width, "[1, inf)")
            self.embedding = build_embedding(self, channels, vocab_size, pad_id, None)
        flat = self.embedding is not None
        self.stem = ConvBlock(channels, width, flat)
        self.stages = nn.ModuleList(
            Stage(width * 2**index, width * 2 ** (index + 1), flat, residual=index != 1)
            for index in range(3)
        )
        self.output = nn.Linear(8 * width, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits."""
        values, real = inputs, None
        if 0 in inputs.shape:  # pooling refuses texts of no length
            return self.output.bias.expand(len(inputs), -1).clone()
        if isinstance(self.embedding, TokenEmbedding):
            values = self.dropout(self.embedding(inputs)).transpose(1, 2)
            real = (inputs != self.pad_id).unsqueeze(1)
        values = self.stem(values, real)
        for stage in self.stages:
            values, real = stage(values, real)
        logits: Tensor = self.output(self.dropout(values.flatten(2).amax(2)))
        return logits


class Stage(nn.Module):
    """A convolution, a pooling and, if ``residual``, the sum with a branch of two convolutions."""

    def __init__(self, inputs: int, outputs: int, flat: bool, residual: bool) -> None:
        super().__init__()
        self.conv = ConvBlock(inputs, outputs, flat)
        # an odd size is rounded up, so that a text's last token counts, padded or not
        self.pool: nn.Module = (nn.MaxPool1d if flat else nn.MaxPool2d)(2, ceil_mode=True)
        blocks = (ConvBlock(outputs, outputs, flat) for _ in range(2))
        self.branch = Branch(blocks) if residual else None

    def forward(self, values: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the values, and which are real."""
        values = self.pool(self.conv(values, real))
        if real is not None:
            real = self.pool(real.to(values.dtype)) > 0
        if self.branch is not None:
            values = values + self.branch(values, real)
        return values, real


class Branch(nn.ModuleList):
    """Blocks in a row, with which of the values are real."""

    def forward(self, values: Tensor, real: Tensor | None) -> Tensor:
        """Return what the last one makes."""
        for block in self:
            values = block(values, real)
        return values


class ConvBlock(nn.Module):
    """A convolution, BatchNorm and ReLU; zero wherever the values aren't real."""

    def __init__(self, inputs: int, outputs: int, flat: bool) -> None:
        super().__init__()
        self.conv = (nn.Conv1d if flat else nn.Conv2d)(inputs, outputs, 3, padding=1, bias=False)
        self.norm = (nn.BatchNorm1d if flat else nn.BatchNorm2d)(outputs)
        self.activation = nn.ReLU()

    def forward(self, values: Tensor, real: Tensor | None = None) -> Tensor:
        """Return ``(batch, outputs, ...)`` for ``real`` of ``(batch, 1, length)``."""
        values = self.conv(values)
        if real is None:
            values = self.norm(values)
        elif self.norm.training:
            values = self._normalize_real(values, real)
        else:
            values = self.norm(values).masked_fill(~real, 0)
        result: Tensor = self.activation(values)
        return result

    def _normalize_real(self, values: Tensor, real: Tensor) -> Tensor:
        """Return the values with the real ones normalized by their own statistics."""
        places, real = values.transpose(1, 2), real.transpose(1, 2)
        chosen = places[real.squeeze(2)]
        self.norm.train(len(chosen) > 1)  # there is no variance of a single one
        chosen = self.norm(chosen)
        self.norm.train()
        return torch.zeros_like(places).masked_scatter(real, chosen).transpose(1, 2)
