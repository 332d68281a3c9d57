"""The elements of a report: sections of text, tables, figures and images."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.data.images import Image, decode
from foldsmith.data.intensity import IntensityRange
from foldsmith.errors import DataError
from foldsmith.utils.interrupts import uninterrupted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Side of an image in a report, px.
_THUMBNAIL = 112
# A figure that is wider than the page is scrolled rather than made smaller than this, px.
_READABLE = 620


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind: str = "text"


@dataclass(frozen=True)
class Table:
    """A table that can be sorted, and searched if it is long.

    Attributes:
        caption: What it shows.
        rows: Its cells as text.
        columns: Their names.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    kind: str = "table"


@dataclass(frozen=True)
class Picture:
    """A figure as a data URI.

    Attributes:
        caption: What it shows.
        uri: The figure.
        width: Its width in px, down to which it is shown whole.
    """

    caption: str
    uri: str
    width: int
    kind: str = "picture"


@dataclass(frozen=True)
class Gallery:
    """Images with a caption each.

    Attributes:
        caption: Caption of all of them.
        images: Data URI and caption of each.
        columns: Images per row; 0 fills the width.
        wide: Whether each is two images beside each other.
    """

    caption: str
    images: Sequence[tuple[str, str]]
    columns: int = 0
    wide: bool = False
    kind: str = "gallery"


Part = Text | Table | Picture | Gallery


@dataclass
class Section:
    """A part of the report with a heading.

    Attributes:
        title: Its heading.
        name: Its anchor.
        parts: Its contents.
    """

    title: str
    name: str
    parts: list[Part] = field(default_factory=list)


def not_done(what: str) -> Text:
    """Return the paragraph that stands for something that was not run."""
    return Text(f"{what} is not done yet.")


def table(caption: str, frame: pd.DataFrame, digits: int = 4) -> Table:
    """Return a table of a frame's columns, numbers rounded."""

    def shown(value: object, digits: int) -> str:
        if value is None or (isinstance(value, float) and pd.isna(value)):
            return ""
        return f"{value:.{digits}f}" if isinstance(value, float) else str(value)

    # Whole numbers that have become floats for want of one, such as the epoch of no fold.
    places = [
        0 if values.dtype == float and (values.dropna() % 1 == 0).all() else digits
        for _, values in frame.items()
    ]
    rows = [
        [shown(value, n) for value, n in zip(row, places, strict=True)]
        for row in frame.itertuples(index=False)
    ]
    return Table(caption, [str(name) for name in frame.columns], rows)


def picture(caption: str, figure: "Figure") -> Picture:
    """Return a figure as SVG, in itself: nothing is fetched when the page is opened."""
    import matplotlib as mpl

    buffer = BytesIO()
    # The same figure is the same bytes.
    with uninterrupted(), mpl.rc_context({"svg.hashsalt": "foldsmith"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    width = min(_READABLE, round(figure.get_figwidth() * 72))
    return Picture(caption, _uri("image/svg+xml", buffer.getvalue()), width)


def thumbnail(path: Path, intensity: IntensityRange | None) -> str:
    """Return an image, made small, as a data URI; empty if it cannot be read."""
    try:
        image: Image = decode(path, intensity)
    except DataError:
        return ""
    scale = min(1.0, _THUMBNAIL / max(image.shape[:2]))
    small = cv2.resize(image, _scaled(image, scale), interpolation=cv2.INTER_AREA)
    return _jpeg(small.astype(np.uint8, copy=False))


def heat_map(view: Image, heat: npt.NDArray[np.float32]) -> str:
    """Return the input of a model, and beside it the same under a heat map, as a data URI.

    Args:
        view: uint8 RGB, shape (H, W, 3).
        heat: In 0..1, shape (rows, columns): hotter is more.
    """
    # Small views are made larger too: cells of the map should be told apart.
    size = _scaled(view, _THUMBNAIL / max(view.shape[:2]))
    shrinks = size[0] < view.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST
    image = cv2.resize(view, size, interpolation=how)
    smooth = cv2.resize(heat, size, interpolation=cv2.INTER_LINEAR)[:, :, None]
    levels = (255 * smooth).round().astype(np.uint8)
    colours = cv2.applyColorMap(levels, cv2.COLORMAP_TURBO)[:, :, ::-1]
    # Grey below, so that every colour is heat; where it is cold the image shows.
    grey = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2)
    covered = (1 - 0.65 * smooth) * grey + 0.65 * smooth * colours
    return _jpeg(np.hstack([image, covered.round().astype(np.uint8)]))


def _scaled(image: Image, scale: float) -> list[int]:
    return [max(1, round(length * scale)) for length in image.shape[1::-1]]


def _jpeg(image: Image) -> str:
    _, data = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    return _uri("image/jpeg", data.tobytes())


def _uri(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"
