import cv2
import numpy as np
import pytest

from foldsmith.data.images import decode
from foldsmith.data.statistics import channel_statistics, measured_images, statistics_by_data
from foldsmith.utils.hashing import FileHashes


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for k, (height, width) in enumerate([(20, 30), (64, 17), (5, 90)]):
        base = rng.integers(0, 200, size=3)
        pixels = np.clip(base + rng.normal(0, 20, size=(height, width, 3)), 0, 255)
        paths.append(tmp_path / f"{k}.png")
        cv2.imwrite(str(paths[-1]), pixels.astype(np.uint8))
    return paths


def facts_of(paths):
    return measured_images(paths, FileHashes(paths[0].parent / "state" / "hashes.json"))


def test_pooled_statistics_are_those_of_all_pixels(images):
    pixels = np.concatenate([decode(path).reshape(-1, 3) for path in images]).astype(np.float64)
    table = channel_statistics(facts_of(images).table)
    np.testing.assert_allclose(table.loc["mean"], pixels.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(table.loc["std"], pixels.std(axis=0), rtol=1e-6)
    np.testing.assert_allclose(table.loc["std_norm"], pixels.std(axis=0) / 255, rtol=1e-6)


def test_std_is_not_the_spread_of_the_images_means(tmp_path):
    # Two images of the same mean: their means do not spread at all, their pixels do.
    board = np.zeros((8, 8, 3), np.uint8)
    board[:, ::2] = 200
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        cv2.imwrite(str(path), board)
    table = facts_of(paths).table
    assert table["r_mean"].std() == 0
    assert channel_statistics(table).loc["std", "Red"] == pytest.approx(100)


def test_channels_are_red_green_blue(tmp_path):
    cv2.imwrite(str(tmp_path / "red.png"), np.full((4, 4, 3), (0, 0, 250), np.uint8))
    table = facts_of([tmp_path / "red.png"]).table
    assert table.loc[0, ["r_mean", "g_mean", "b_mean"]].tolist() == [250, 0, 0]
    assert channel_statistics(table).loc["mean"].tolist() == [250, 0, 0]


def test_rows_of_train_and_test_follow(images):
    table = facts_of(images).table.assign(data_type=["train", "test", "test"])
    rows = statistics_by_data(table)
    assert rows.index.tolist() == [
        f"{name}{part}"
        for part in ("", "_train", "_test")
        for name in ("mean", "std", "mean_norm", "std_norm")
    ]
    expected = decode(images[0]).reshape(-1, 3).mean(axis=0)
    np.testing.assert_allclose(rows.loc["mean_train"], expected, rtol=1e-6)


def test_every_unreadable_image_is_listed(images, tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no image")
    bad = [tmp_path / "empty.jpg", images[0], tmp_path / "text.jpg", tmp_path / "none.jpg"]
    facts = facts_of(bad)
    assert [problem and problem.split(":")[0] for problem in facts.problems] == [
        str(bad[0]),
        None,
        str(bad[2]),
        str(bad[3]),
    ]
    assert facts.table.isna().all(axis=1).tolist() == [True, False, True, True]
