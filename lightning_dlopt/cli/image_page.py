"""A page of images in rows, each with a line of text beneath it."""

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_dlopt.cli.png import DPI, write_png

#: Pixels of the page: the least and most side of an image, gaps, and a line of text's height.
LEAST, MOST, GAP, LINE = 112, 256, 10, 14
#: The font's size in points, and the pixels that a letter takes, which is rather too much.
FONT, LETTER = 8, 6.2


@dataclass(frozen=True)
class Row:
    """A row of the page.

    Attributes:
        title: what stands above it.
        images: ``(n, C, H, W)``, one or three channels in [0, 1].
        labels: what stands beneath each.
    """

    title: str
    images: Tensor
    labels: list[str]


def draw_page(head: list[str], rows: list[Row], output: Path) -> None:
    """Draw the rows beneath some lines of text and write a PNG.

    Pixels stay sharp: an image is enlarged by a whole number. One larger than its place is made
    smaller.
    """
    from matplotlib.figure import Figure

    longest = max(max(row.images.shape[2:]) for row in rows)
    side = min(-(-LEAST // longest) * longest, max(MOST, LEAST))
    columns = max(len(row.images) for row in rows)
    width = max(columns * (side + GAP) + GAP, 420)
    lines = [part for text in head for part in _wrap(text, width - 2 * GAP) or [""]]
    wrapped = [[_wrap_label(label, side + GAP - 4) for label in row.labels] for row in rows]
    depths = [max((len(label) for label in labels), default=0) for labels in wrapped]
    height = GAP + LINE * len(lines) + GAP
    height += sum(LINE + 4 + side + 4 + LINE * depth + GAP for depth in depths)
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")

    def write(x: float, top: float, text: str, **style: Any) -> None:
        place = (x / width, 1 - top / height)
        figure.text(*place, text, fontsize=FONT, va="top", parse_math=False, **style)

    top = GAP
    for line in lines:
        write(GAP, top, line)
        top += LINE
    top += GAP
    for row, labels, depth in zip(rows, wrapped, depths, strict=True):
        write(GAP, top, row.title, weight="bold")
        top += LINE + 4
        for column, image in enumerate(row.images):
            left = GAP + column * (side + GAP)
            box = (left / width, 1 - (top + side) / height, side / width, side / height)
            axes = figure.add_axes(box)
            axes.set_axis_off()
            smaller = max(image.shape[1:]) > side
            colors = (image * 255).round().byte().expand(3, -1, -1).permute(1, 2, 0)
            axes.imshow(colors, interpolation="antialiased" if smaller else "nearest")
            for index, part in enumerate(labels[column] if labels else []):
                write(left + side / 2, top + side + 4 + index * LINE, part, ha="center")
        top += side + 4 + LINE * depth + GAP
    write_png(figure, output)


def _wrap(text: str, width: float) -> list[str]:
    return textwrap.wrap(text, max(8, int(width / LETTER)))


def _wrap_label(label: str, width: float) -> list[str]:
    """Break a label where there is a plus, if it doesn't fit."""
    if len(label) * LETTER <= width:
        return [label]
    parts = label.replace(" + ", " +\n").split("\n")
    return [line for part in parts for line in _wrap(part, width)]
