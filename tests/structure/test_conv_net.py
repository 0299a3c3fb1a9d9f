import pytest
import torch
from torch import nn

from lightning_dlopt import ConvNet


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (7, 30)])
def test_images_of_any_size(size: tuple[int, int]) -> None:
    images = torch.rand(4, 3, *size)
    network = ConvNet([3, 8, 16, 16], 5).eval()
    logits = network(images)
    assert logits.shape == (4, 5)
    # by hand: convolutions, a pooling between them, the mean over all places
    x = images
    convolutions = [layer for layer in network if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in network if isinstance(layer, nn.BatchNorm2d)]
    for index, (convolution, norm) in enumerate(zip(convolutions, norms, strict=True)):
        if index:
            x = nn.functional.max_pool2d(x, 2, ceil_mode=True)
        x = norm(nn.functional.conv2d(x, convolution.weight, padding=1)).relu()
    torch.testing.assert_close(logits, network[-1](x.mean((2, 3))))
    assert len(convolutions) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": [1]}, r"channels=\[1\] must hold an input and an output"),
        ({"channels": [0, 4]}, "channels=0"),
        ({"channels": 3}, r"channels=3 must be integers in \[1, inf\)"),
        ({"channels": [1, 4], "num_classes": 0}, "num_classes=0"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        ConvNet(**arguments)  # type: ignore[arg-type]
