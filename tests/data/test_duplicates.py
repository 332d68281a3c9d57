import time
from itertools import combinations
from unittest import mock

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldsmith.data import near_duplicates as duplicates
from foldsmith.data.folds import assign_folds
from foldsmith.data.images import decode
from foldsmith.data.near_duplicates import (
    HASH_DISTANCE,
    THUMBNAIL_DISTANCE,
    merged_groups,
    miniature,
    near_duplicates,
    near_pairs,
    perceptual_hash,
    thumbnail,
)
from foldsmith.errors import DataError
from foldsmith.project import ProjectFolder
from foldsmith.project.settings import FoldSettings
from foldsmith.project.tables import groups_of
from foldsmith.steps.preprocess import preprocess

NEAR = [(1, 0), (1, 1 << 5), (1, 1 << 63)]


@settings(max_examples=200)
@given(
    st.lists(st.integers(0, 2**64 - 1), max_size=12),
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 2**64 - 1)), max_size=8),
    st.integers(0, 10),
)
def test_all_near_pairs_are_found(values, flips, distance):
    # Random numbers are never near: add copies with some bits flipped.
    for k, mask in flips:
        if k < len(values):
            values = [*values, values[k] ^ (mask & (mask >> 1) & (mask >> 2) & (mask >> 3))]
    hashes = np.array(values, np.uint64)
    expected = [
        (i, j, (values[i] ^ values[j]).bit_count())
        for i in range(len(values))
        for j in range(i + 1, len(values))
        if (values[i] ^ values[j]).bit_count() <= distance
    ]
    # As of few images, by one band of bits at a time, and as of very many, by three.
    for cost_of_sorting in (20, 0):
        with mock.patch.object(duplicates, "_SORTED", cost_of_sorting):
            found = near_pairs(hashes, distance)
        assert list(found.itertuples(index=False, name=None)) == expected


@pytest.fixture(scope="module")
def images(generated_data):
    return [decode(path) for path in sorted((generated_data / "photos").glob("*.jpg"))[:40]]


def pairs_of(images):
    """Return the pairs of images in one group."""
    small = [miniature(image) for image in images]
    hashes = np.array([perceptual_hash(image) for image in small], np.uint64)
    found = near_duplicates(hashes, np.stack([thumbnail(image) for image in small]).__getitem__)
    group = merged_groups(None, found, len(images))
    return {(i, j) for i, j in combinations(range(len(images)), 2) if group[i] == group[j]}


def groups_by_all_pairs(hashes, copies):
    """Return the groups as all pairs of images give them."""
    links = []
    for i, j in combinations(range(len(hashes)), 2):
        apart = copies[i].astype(np.float64) - copies[j]
        apart -= apart.mean(axis=(0, 1))
        near = np.sqrt((apart**2).mean()) <= THUMBNAIL_DISTANCE
        if near and (int(hashes[i]) ^ int(hashes[j])).bit_count() <= HASH_DISTANCE:
            links.append((i, j))
    pairs = pd.DataFrame(links, columns=["first", "second"], dtype=np.int64)
    return merged_groups(None, pairs, len(hashes))


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 2**10 - 1), st.integers(0, 60)),
        min_size=1,
        max_size=40,
    )
)
def test_groups_are_those_of_all_pairs(images):
    # Hashes in three places with some bits flipped, thumbnails along a line: chains and clusters.
    hashes = np.array([(base * (2**64 - 1) // 3) ^ flips for base, flips, _ in images], np.uint64)
    pattern = np.indices((16, 16)).sum(axis=0)[..., None] % 2 * np.ones(3)
    copies = np.stack([(pattern * 3 * step).astype(np.uint8) for _, _, step in images])
    for compared in (1024, 3):
        with mock.patch.object(duplicates, "_COMPARED", compared):
            links = near_duplicates(hashes, copies.__getitem__)
        found = merged_groups(None, links, len(images))
        expected = groups_by_all_pairs(hashes, copies)
        assert len(set(zip(found, expected, strict=True))) == len(set(found)) == len(set(expected))
        assert len(links) == len(images) - len(set(found))


@pytest.mark.parametrize("noise", [0, 3])
def test_thousands_of_equal_or_nearly_equal_images_take_little(images, noise):
    rng = np.random.default_rng(0)
    first = images[0].astype(np.int64)
    small = [
        miniature((first + rng.normal(0, noise, first.shape)).clip(0, 255).astype(np.uint8))
        for _ in range(1500)
    ]
    hashes = np.array([perceptual_hash(image) for image in small], np.uint64)
    copies = np.stack([thumbnail(image) for image in small])
    read = []

    def reading(rows):
        read.append(len(rows))
        return copies[rows]

    started = time.process_time()
    links = near_duplicates(hashes, reading)
    assert len(links) >= 0.9 * len(small)
    # All pairs took 13 s, and 4 million thumbnails.
    assert time.process_time() - started < 4
    assert sum(read) < 20 * len(small)


def test_copies_of_a_image_are_near(images):
    def recompressed(image):
        return cv2.imdecode(cv2.imencode(".png", image // 8 * 8)[1], cv2.IMREAD_COLOR)

    for change in (
        lambda image: image.copy(),
        lambda image: cv2.resize(image, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA),
        lambda image: np.clip(image * 0.95 + 5, 0, 255).astype(np.uint8),
        recompressed,
    ):
        found = pairs_of([*images, *map(change, images)])
        near = sum((k, k + len(images)) in found for k in range(len(images)))
        assert near >= 0.9 * len(images)


def test_other_images_are_not(images):
    assert len(pairs_of(images)) <= 1
    # Flat images of two colours have the same hash.
    flat = [np.full((32, 32, 3), colour, np.uint8) for colour in ((250, 0, 0), (0, 0, 250))]
    assert perceptual_hash(flat[0]) == perceptual_hash(flat[1])


@given(st.integers(2, 30), st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29))))
def test_linked_images_share_a_group(n, links):
    links = [(a, b) for a, b in links if a < n and b < n]
    pairs = pd.DataFrame(links, columns=["first", "second"], dtype=np.int64)
    groups = pd.Series([f"g{k // 3}" for k in range(n)])
    merged = merged_groups(groups, pairs, n)
    for a, b in links:
        assert merged[a] == merged[b]
    for k in range(n):
        assert merged[k] == merged[k // 3 * 3]
    if not links:
        assert len(set(merged)) == groups.nunique()
        assert len(set(merged_groups(None, pairs, n))) == n


@pytest.mark.parametrize(
    "method", ["KFold", "StratifiedKFold", "GroupKFold", "StratifiedGroupKFold"]
)
def test_near_duplicates_share_a_fold_with_every_method(method):
    rng = np.random.default_rng(0)
    targets = pd.Series(rng.integers(0, 3, 90))
    groups = pd.Series(rng.integers(0, 45, 90)).astype(str)
    pairs = pd.DataFrame({"first": np.arange(0, 40, 2), "second": np.arange(50, 90, 2)})
    settings = FoldSettings(method=method, n_splits=3)
    merged = merged_groups(groups if "Group" in method else None, pairs, len(targets))
    folds = assign_folds(settings, targets, groups, merged)
    assert (folds[pairs["first"]] == folds[pairs["second"]]).all()
    assert set(folds) == {0, 1, 2}
    if "Group" in method:
        assert pd.Series(folds).groupby(groups).nunique().max() == 1


def test_too_few_groups_are_left(tmp_path):
    pairs = pd.DataFrame({"first": np.arange(9), "second": np.arange(1, 10)})
    merged = merged_groups(None, pairs, 10)
    with pytest.raises(DataError, match="1 group is left when near-identical images share one"):
        assign_folds(FoldSettings(method="KFold", n_splits=2), pd.Series([0, 1] * 5), None, merged)


def test_preprocess_lists_leaks_and_can_mend_them(project_dir, capsys):
    data = project_dir / "input/atmaCup-11"
    opened = ProjectFolder.open(project_dir)
    preprocess(opened)
    folds = pd.read_csv(opened.fold_table)
    test = pd.read_csv(data / "test.csv")["object_id"]
    one, other = (folds["object_id"][folds["fold"] == fold].iloc[0] for fold in (0, 1))
    image = cv2.imread(str(data / f"photos/{one}.jpg"))
    for copy in (other, test[0]):
        cv2.imwrite(str(data / f"photos/{copy}.jpg"), image)
    capsys.readouterr()
    preprocess(opened)
    warned = capsys.readouterr().err
    assert "in different folds, which makes scores too good: 1 group of them" in warned
    assert "near-identical images are in train and test: 1 group of them" in warned
    listed = pd.read_csv(data / "near_duplicates.csv", dtype=str)
    assert list(listed.columns) == ["group", "object_id", "in"]
    assert set(listed["group"]) == {"1"}
    places = listed.set_index("object_id")["in"].to_dict()
    assert places == {one: "fold 0", other: "fold 1", test[0]: "test"}

    path = project_dir / "project.yml"
    path.write_text(
        path.read_text().replace("seed: 1086}", "seed: 1086, merge_near_duplicates: true}")
    )
    preprocess(ProjectFolder.open(project_dir))
    assert "in different folds" not in capsys.readouterr().err
    table = pd.read_csv(opened.fold_table).set_index("object_id")
    assert table["fold"][one] == table["fold"][other]
    # The bootstrap draws them together too.
    groups = pd.Series(groups_of(opened, table.reset_index()), index=table.index)
    assert groups[one] == groups[other]
    assert groups.nunique() < table["art_series_id"].nunique()
