from pathlib import Path

import numpy as np
import pytest

from foldsmith.data.cache.image_store import ImageStore
from foldsmith.data.contact_sheet import GAP, contact_sheet
from foldsmith.data.datasets import ImageDataset
from foldsmith.data.images import decode
from foldsmith.data.transforms import Normalize, VerticalFlip
from foldsmith.utils.hashing import FileHashes

NORMALIZE = Normalize([0.5] * 3, [0.2] * 3)
FLIP = VerticalFlip(p=1.0)


@pytest.mark.parametrize("transforms", [[FLIP, NORMALIZE], [NORMALIZE, FLIP]])
def test_a_row_is_the_image_and_its_samples_without_normalisation(write_images, transforms):
    paths = write_images(2, 8, 8)
    store = ImageStore(None, FileHashes(Path("no such folder") / "hashes.json"))
    data = ImageDataset(store, paths, np.arange(2), None, transforms, seed=0)
    sheet = contact_sheet(data, n_images=2, n_samples=2, cell=8)
    for row, path in enumerate(paths):
        image = decode(path)
        for column, expected in enumerate([image, image[::-1], image[::-1]]):
            top, left = GAP + row * (8 + GAP), GAP + column * (8 + GAP)
            found = sheet[top : top + 8, left : left + 8]
            np.testing.assert_array_equal(found, expected)
