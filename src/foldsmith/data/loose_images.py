"""Images outside the tables: given files and folders, images in memory."""

import glob
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from foldsmith.data.images import Image, as_bytes, decode
from foldsmith.data.intensity import DeepImageError, IntensityRange
from foldsmith.data.transforms.base import Compose
from foldsmith.errors import DataError, one_line
from foldsmith.project.image_files import LISTED_SUFFIXES, LeftOut, walk_images

logger = logging.getLogger(__name__)

# Transforms need a generator, but transforms that run once per image do not use it.
_UNUSED = np.random.default_rng(0)


def find_images(names: Iterable[str | Path]) -> list[Path]:
    """Return the images that files, folders and patterns name, each once.

    Args:
        names: Files, taken as they are; folders, of which every image in them and below is
            taken, in the order of the names, behind links too; patterns such as ``new/**/*.jpg``.

    Raises:
        DataError: A folder holds no image, or a pattern fits nothing.
    """
    found: dict[Path, None] = {}
    for name in map(str, names):
        path = Path(name)
        if path.exists() or not glob.has_magic(name):
            paths = [path]
        else:
            paths = sorted(map(Path, glob.glob(name, recursive=True)))
            if not paths:
                raise DataError(f"{name}: no file has such a name")
            if any(path.is_file() for path in paths):
                # A pattern such as new/**/* fits the folders on the way too.
                paths = [path for path in paths if path.is_file()]
        for path in paths:
            found.update(dict.fromkeys(_in_folder(path) if path.is_dir() else [path]))
    return list(found)


def _in_folder(folder: Path) -> list[Path]:
    left_out = LeftOut()
    images = sorted(walk_images(folder, left_out))
    if not images:
        also = f"; it holds {left_out}" if str(left_out) else ""
        raise DataError(f"{folder}: holds no images ({LISTED_SUFFIXES}){also}")
    if str(left_out):
        logger.warning(f"{folder}: not taken for images: {left_out}")
    return images


def pixels_of(image: Any, name: str, intensity: IntensityRange | None = None) -> Image:
    """Return an image as :func:`~foldsmith.data.images.decode` returns images.

    Args:
        image: Path of an image, uint8 RGB array of shape (H, W, 3), or PIL image, whose EXIF
            orientation is applied. With a scale also deeper ones, and arrays of shape (H, W).
        name: Name of an image in memory, for errors.
        intensity: Scale of images with more than 8 bits per channel.

    Returns:
        RGB, uint8, shape (H, W, 3).

    Raises:
        DataError: The file is not a readable image, or the image is of another kind.
    """
    if isinstance(image, (str, Path)):
        try:
            return decode(Path(image), intensity)
        except DeepImageError as error:
            raise DataError(
                f"{image}: has {error.form} values, but the models were trained on images of 8 "
                "bits per channel; convert it as those were"
            ) from None
    if isinstance(image, np.ndarray):
        deep = intensity is not None and image.dtype.kind in "uif" and image.dtype != np.uint8
        if deep and image.size and (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
            return as_bytes(image, name, intensity)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise DataError(
                f"{name}: is an array of {image.dtype}, shape {image.shape}; it must be RGB, "
                "uint8, shape (H, W, 3)"
            )
        return np.ascontiguousarray(image)
    if _is_pil(image):
        return _from_pil(image, name, intensity)
    raise DataError(
        f"{name}: is a {type(image).__name__}; it must be a path, an array of uint8 RGB or a PIL "
        "image"
    )


def as_list(images: Any) -> list[Any]:
    """Return one image or several as a list.

    Args:
        images: Input of :func:`pixels_of`, or an iterable of such inputs; an array of shape
            (n, H, W, 3) is n images.
    """
    one = isinstance(images, (str, Path)) or _is_pil(images)
    if one or (isinstance(images, np.ndarray) and images.ndim == 3):
        return [images]
    return list(images)


def _is_pil(image: Any) -> bool:
    # Without an import: who hands over an image of PIL has it.
    return type(image).__module__.split(".")[0] == "PIL"


def _from_pil(image: Any, name: str, intensity: IntensityRange | None) -> Image:
    from PIL import ImageOps

    deep = image.mode.startswith(("I", "F"))
    if deep and intensity is None:
        raise DataError(
            f"{name}: is a PIL image of mode {image.mode}, whose range is not known; hand over "
            "its path, or 8-bit RGB"
        )
    try:
        if deep:
            return as_bytes(np.array(ImageOps.exif_transpose(image)), name, intensity)
        return np.array(ImageOps.exif_transpose(image).convert("RGB"), dtype=np.uint8)
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{name}: not a readable image ({one_line(error)})") from None


class ImagesAtHand:
    """Images in memory, each as the stored heads of several lists of transforms leave it.

    A source for :class:`~foldsmith.data.datasets.ImageDataset`: every image is decoded once
    for all datasets that are made of it.

    Args:
        heads: Transforms that run once per image; each gives a version.

    Attributes:
        n_bytes: Size of the versions.
    """

    def __init__(self, heads: Sequence[Compose]) -> None:
        self._heads = {repr(head): head for head in heads}
        self._versions: dict[str, list[Image]] = {name: [] for name in self._heads}
        self._n = 0
        self.n_bytes = 0

    def __len__(self) -> int:
        return self._n

    def versions(self, image: Image) -> dict[str, Image]:
        """Return the versions of an image, one per head, for :meth:`add`; changes nothing."""
        made = {}
        for name, head in self._heads.items():
            # As the store does it, to the pixel.
            kept = head.keeps(image.shape[0], image.shape[1])
            version = image if kept else head(image, _UNUSED)
            made[name] = version.astype(np.uint8, copy=False)
        return made

    def add(self, versions: Mapping[str, Image]) -> None:
        """Add an image, as :meth:`versions` returned it."""
        for name, image in versions.items():
            self._versions[name].append(image)
            self.n_bytes += image.nbytes
        self._n += 1

    def load(self, paths: Sequence[Path], prepare: Compose, label: str) -> "HeldImages":
        """Return the images; ``paths`` are as many as there are, their names do not matter."""
        assert len(paths) == self._n, "a dataset of images at hand is of all of them"
        return HeldImages(self._versions[repr(prepare)])


class HeldImages:
    """A sequence of images in memory; ``images[i]`` is uint8 RGB, shape (H, W, 3).

    Args:
        images: The images.
    """

    def __init__(self, images: Sequence[Image]) -> None:
        self._images = list(images)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Image:
        return self._images[index]

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Height and width of each, int64, shape (n, 2)."""
        return np.array([image.shape[:2] for image in self._images], np.int64)
