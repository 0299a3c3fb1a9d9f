"""A recurrent network over texts and over the rows of images."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_dlopt.core.checks import check_choice, check_flag, check_integer, check_number
from lightning_dlopt.core.errors import ArgumentError
from lightning_dlopt.structure.networks.embedding import build_embedding, masked_mean

_KINDS = {"lstm": nn.LSTM, "gru": nn.GRU}


class RecurrentNet(nn.Module):
    """An embedding, LSTM or GRU layers, the mean over the sequence, and a linear layer.

    The sequence is a text's tokens or an image's rows, each of which goes through one linear layer
    first. How far a text is padded on the right changes nothing: the mean leaves padding out, and
    the backward direction begins at the text's last token.

    Source: S. Hochreiter, J. Schmidhuber, Long Short-Term Memory, 1997; the GRU of K. Cho and
    others, Learning Phrase Representations using RNN Encoder-Decoder, 2014, arXiv:1406.1078; both
    directions as in M. Schuster, K. K. Paliwal, Bidirectional Recurrent Neural Networks, 1997.

    When:
        Texts and other sequences of some tens of places, from not very much data.

    When not:
        Long sequences, since places are computed one after the other; images, unless to compare.

    Args:
        vocab_size: number of token ids, at least 2; the same as the data's.
        num_classes: number of outputs, at least 1.
        width: width of the embedding and of the layers, both directions together; at least 1.
        layers: number of layers, at least 1.
        kind: ``"lstm"`` or ``"gru"``.
        bidirectional: let half of each layer read from the end; ``width`` must then be even.
        dropout: the rate of the dropout after the embedding and after each layer, in [0, 1).
        pad_id: the id of padding, from 0.
        image_size: in place of ``vocab_size`` the images' ``[channels, height, width]``.

    Shape:
        Token ids ``(batch, length)``, or images ``(batch, channels, height, width)``; the output is
        ``(batch, num_classes)``, without an activation. Of a text without any token only the biases
        are left. ``torch.export`` fixes the length (torch unrolls recurrent layers), to which
        shorter texts can be padded.

    Raises:
        ArgumentError: if an argument is outside its range, or images have another size.

    Example:
        >>> RecurrentNet(100, 3, width=8)(torch.tensor([[5, 6, 7], [8, 0, 0]])).shape
        torch.Size([2, 3])
        >>> RecurrentNet(image_size=[1, 28, 28])(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        vocab_size: int | None = None,
        num_classes: int = 10,
        width: int = 128,
        layers: int = 1,
        kind: str = "lstm",
        bidirectional: bool = True,
        dropout: float = 0.0,
        pad_id: int = 0,
        image_size: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        width = check_integer(self, "width", width, "[1, inf)")
        layers = check_integer(self, "layers", layers, "[1, inf)")
        build = _KINDS[check_choice(self, "kind", kind, list(_KINDS))]
        directions = 2 if check_flag(self, "bidirectional", bidirectional) else 1
        if width % directions:
            raise ArgumentError(f"RecurrentNet: width={width} must be even with bidirectional=True")
        self.num_classes = check_integer(self, "num_classes", num_classes, "[1, inf)")
        self.embedding = build_embedding(self, width, vocab_size, pad_id, image_size)
        self.vocab_size, self.pad_id = vocab_size, pad_id
        self.dropout = nn.Dropout(check_number(self, "dropout", dropout, "[0, 1)"))
        self.forwards, self.backwards = (
            nn.ModuleList(
                build(width, width // directions, batch_first=True) for _ in range(layers * used)
            )
            for used in (1, directions - 1)
        )
        self.output = nn.Linear(width, num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of token ids, or of images."""
        if 0 in tokens.shape:  # recurrent layers refuse texts of no length
            return self.output.bias.expand(len(tokens), -1).clone()
        real = self.embedding.real(tokens)
        values: Tensor = self.dropout(self.embedding(tokens))
        # torch's own bidirectional layers would begin in the padding, or need lengths on the CPU
        place = None if real is None else _reversed_places(real).unsqueeze(2)
        for index, layer in enumerate(self.forwards):
            outputs = _run(layer, values)
            if len(self.backwards):
                backward = _run(self.backwards[index], _reverse(values, place))
                outputs = torch.cat([outputs, _reverse(backward, place)], dim=2)
            values = self.dropout(outputs)
        logits: Tensor = self.output(masked_mean(values, real))
        return logits


def _run(layer: nn.Module, values: Tensor) -> Tensor:
    """Return a recurrent layer's outputs; on the CPU in float32, also under autocast.

    Not every processor has an LSTM in bfloat16, and where there is none torch raises.
    """
    outputs: Tensor
    if values.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        with torch.autocast("cpu", enabled=False):
            outputs, _ = layer(values.float())
    else:
        outputs, _ = layer(values)
    return outputs


def _reverse(values: Tensor, place: Tensor | None) -> Tensor:
    return values.flip(1) if place is None else values.gather(1, place.expand_as(values))


def _reversed_places(real: Tensor) -> Tensor:
    """Return where each position's token is when each text is reversed and its padding is not."""
    position = torch.arange(real.shape[1], device=real.device)
    length = ((position + 1) * real).amax(1, keepdim=True)
    return torch.where(position < length, length - 1 - position, position)
