import cv2
import numpy as np
import pytest

from foldsmith.data.images import decode
from foldsmith.data.statistics import channel_statistics, image_table, statistics_by_data
from foldsmith.errors import DataError


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for k, (height, width) in enumerate([(20, 30), (64, 17), (5, 90)]):
        base = rng.integers(0, 200, size=3)
        pixels = np.clip(base + rng.normal(0, 20, size=(height, width, 3)), 0, 255)
        paths.append(tmp_path / f"{k}.png")
        cv2.imwrite(str(paths[-1]), pixels.astype(np.uint8))
    return paths


def test_pooled_statistics_are_those_of_all_pixels(photos):
    pixels = np.concatenate([decode(path).reshape(-1, 3) for path in photos]).astype(np.float64)
    table = channel_statistics(image_table(photos))
    np.testing.assert_allclose(table.loc["mean"], pixels.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(table.loc["std"], pixels.std(axis=0), rtol=1e-6)
    np.testing.assert_allclose(table.loc["std_norm"], pixels.std(axis=0) / 255, rtol=1e-6)


def test_std_is_not_the_spread_of_the_photos_means(tmp_path):
    # Two photos of the same mean: their means do not spread at all, their pixels do.
    board = np.zeros((8, 8, 3), np.uint8)
    board[:, ::2] = 200
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        cv2.imwrite(str(path), board)
    table = image_table(paths)
    assert table["r_mean"].std() == 0
    assert channel_statistics(table).loc["std", "Red"] == pytest.approx(100)


def test_channels_are_red_green_blue(tmp_path):
    cv2.imwrite(str(tmp_path / "red.png"), np.full((4, 4, 3), (0, 0, 250), np.uint8))
    table = image_table([tmp_path / "red.png"])
    assert table.loc[0, ["r_mean", "g_mean", "b_mean"]].tolist() == [250, 0, 0]
    assert channel_statistics(table).loc["mean"].tolist() == [250, 0, 0]


def test_rows_of_train_and_test_follow(photos):
    table = image_table(photos).assign(data_type=["train", "test", "test"])
    rows = statistics_by_data(table)
    assert rows.index.tolist() == [
        f"{name}{part}"
        for part in ("", "_train", "_test")
        for name in ("mean", "std", "mean_norm", "std_norm")
    ]
    expected = decode(photos[0]).reshape(-1, 3).mean(axis=0)
    np.testing.assert_allclose(rows.loc["mean_train"], expected, rtol=1e-6)


def test_every_unreadable_photo_is_listed(photos, tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no photo")
    bad = [tmp_path / "empty.jpg", photos[0], tmp_path / "text.jpg", tmp_path / "none.jpg"]
    with pytest.raises(DataError) as error:
        image_table(bad)
    lines = str(error.value).splitlines()
    assert [line.split(":")[0] for line in lines] == [str(bad[0]), str(bad[2]), str(bad[3])]
