"""Bad tables and images: all found at once, before any work, one line each."""

import io

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from small_project import EXPERIMENTS, write_experiment
from warm import foldsmith

from foldsmith.data.images import decode

RUN = ["run", "--no-report", "-cfg", "exp_config/900.yml"]


def errors_of(result) -> list[str]:
    assert result.returncode == 2, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    lines = result.stderr.splitlines()
    assert all(line.startswith("foldsmith: error: ") for line in lines), lines
    return [line.removeprefix("foldsmith: error: ") for line in lines]


def test_every_problem_of_the_tables_is_found_at_once(small_project):
    data = small_project / "input"
    train = pd.read_csv(data / "train.csv", dtype={"object_id": str})
    first_test = pd.read_csv(data / "test.csv")["object_id"][0]
    train["target"] = train["target"].astype(float)
    train.loc[0, "target"] = 9
    train.loc[1, "target"] = np.nan
    train.loc[2, "art_series_id"] = None
    train.loc[3, "object_id"] = "../../secret"
    train.to_csv(data / "train.csv", index=False)
    test = pd.concat([pd.read_csv(data / "test.csv"), pd.DataFrame({"object_id": [first_test]})])
    test.to_csv(data / "test.csv", index=False)
    # Whichever command it is.
    for command in (RUN, [*RUN, "--dry-run"], ["preprocess"], ["doctor"]):
        lines = errors_of(foldsmith(small_project, *command))
        assert len(lines) == 5, lines
        for text in (
            "train.csv: column target: 1 target is missing or no number",
            "train.csv: column target: 1 target is outside target_range 0..3",
            "train.csv: column art_series_id: 1 row has no group, line 4",
            "train.csv: column object_id: '../../secret' leads out of the image folder",
            f"test.csv: column object_id: '{first_test}' stands more than once",
        ):
            assert any(text in line for line in lines), (text, lines)
    assert not (small_project / "output").exists()


def test_tables_that_do_not_fit_each_other(small_project):
    data = small_project / "input"
    text = (small_project / "project.yml").read_text()
    (small_project / "project.yml").write_text(
        text.replace("n_splits: 2", "n_splits: 30") + "sample_submission: sample.csv\n"
    )
    pd.DataFrame({"target": [0, 0]}).to_csv(data / "sample.csv", index=False)
    train_ids = pd.read_csv(data / "train.csv")["object_id"]
    pd.DataFrame({"object_id": train_ids[:8]}).to_csv(data / "test.csv", index=False)
    lines = errors_of(foldsmith(small_project, "preprocess"))
    assert len(lines) == 3, lines
    assert any("sample.csv: 2 rows, but the test table has 8" in line for line in lines)
    assert any("24 labelled images cannot fill 30 folds" in line for line in lines)
    assert any("8 ids are in train.csv too" in line for line in lines)
    pd.DataFrame({"wrong": [0] * 8}).to_csv(data / "sample.csv", index=False)
    lines = errors_of(foldsmith(small_project, "preprocess"))
    assert any("sample.csv: no column of predictions (it has: wrong)" in line for line in lines)


def jpeg(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


def png(array: np.ndarray) -> bytes:
    return cv2.imencode(".png", array)[1].tobytes()


@pytest.fixture
def picture():
    small = np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8)
    return cv2.resize(small, (64, 48), interpolation=cv2.INTER_CUBIC)


def decoded(path, data):
    path.write_bytes(data)
    return decode(path)


def test_images_of_every_kind_are_decoded_right(tmp_path, picture):
    path = tmp_path / "image.jpg"
    image = Image.fromarray(picture)
    # CMYK: as Pillow converts it, but for rounding.
    cmyk = jpeg(image.convert("CMYK"))
    expected = np.asarray(Image.open(io.BytesIO(cmyk)).convert("RGB")).astype(int)
    assert np.abs(decoded(path, cmyk) - expected).mean() < 3
    # Palette, grey, alpha: as Pillow converts them.
    for mode in ("P", "L", "1", "LA", "RGBA"):
        buffer = io.BytesIO()
        image.convert(mode).save(buffer, "PNG")
        expected = np.asarray(Image.open(buffer).convert(mode).convert("RGB"))
        np.testing.assert_array_equal(decoded(path, buffer.getvalue()), expected, err_msg=mode)
    # EXIF: turned a quarter to the right.
    exif = image.getexif()
    exif[0x0112] = 6
    turned = decoded(path, jpeg(image, exif=exif)).astype(int)
    assert np.abs(turned - np.rot90(picture, -1)).mean() < 6
    # 1 x 1, and 20,000 px long.
    assert decoded(path, png(picture[:1, :1])).shape == (1, 1, 3)
    long = np.zeros((20_000, 12, 3), np.uint8)
    assert decoded(path, png(long)).shape == long.shape


def test_odd_images_go_through_the_whole_job_and_bad_ones_are_left_out(small_project, picture):
    # A network that is better than the constant, so that the blends are more than that.
    network = {"100": {"model/base_name": "resnet10t"}, "200": {"model/base_name": "resnet10t"}}
    network["000"] = {"model/backbone/model_name": "resnet10t"}
    for name, values in network.items():
        write_experiment(small_project, name, EXPERIMENTS[name] | values)
    images = small_project / "input/photos"
    train = pd.read_csv(small_project / "input/train.csv")["object_id"]
    test = pd.read_csv(small_project / "input/test.csv")["object_id"]
    image = Image.fromarray(picture)
    good = [
        jpeg(image.convert("CMYK")),
        jpeg(image.convert("L")),
        png(picture.astype(np.uint16) << 8),
        png(picture[:1, :1]),
        png(np.tile(picture[:2, :2], (10_000, 3, 1))),
    ]
    for name, data in zip(train, good, strict=False):
        (images / f"{name}.jpg").write_bytes(data)
    whole = jpeg(image)
    bad = {
        train[10]: (b"", "an empty file"),
        train[11]: (whole[: len(whole) // 2], "truncated"),
        test[1]: (b"<html>404</html>", "a web page"),
        test[2]: (whole[:-40], "truncated"),
    }
    for name, (data, _) in bad.items():
        (images / f"{name}.jpg").write_bytes(data)
    (images / f"{test[3]}.jpg").unlink()
    for command in (RUN, ["doctor"]):
        lines = errors_of(foldsmith(small_project, *command))
        assert any(f"{test[3]}.jpg: no such image" in line for line in lines)
        for name, (_, reason) in bad.items():
            assert any(f"{name}.jpg" in line and reason in line for line in lines), lines
        assert any("write them into it: intensity_range: [" in line for line in lines), lines
    with (small_project / "project.yml").open("a") as file:
        file.write("intensity_range: [0, 65280]\n")
    assert (
        "2 train and 3 test images cannot be read"
        in errors_of(foldsmith(small_project, "preprocess"))[-1]
    )
    assert not (small_project / "output").exists()

    result = foldsmith(small_project, *RUN, "--skip-bad")
    assert result.returncode == 0, result.stderr
    assert "warning: 2 train images cannot be read and are left out" in result.stderr
    assert "3 test images cannot be read; they get the mean of the train targets" in result.stderr
    table = pd.read_csv(small_project / "input/train_gkf-2fold.csv")
    assert len(table) == 22 and not set(table["object_id"]) & set(bad)
    mean = table["target"].mean()
    for name in ("900/submission_avg_all", "900/submission_weight_optimization_all"):
        submission = pd.read_csv(small_project / f"output/{name}.csv")
        assert submission["object_id"].tolist() == test.tolist()
        np.testing.assert_allclose(submission["target"][1:4], mean, rtol=1e-6)
        assert submission["target"].nunique() > 2
    # The next run needs no flag, and says so.
    again = foldsmith(small_project, *RUN)
    assert again.returncode == 0
    assert "2 train images are left out and 3 test images get the mean" in again.stderr
    # A mended image makes everything stale that reads images.
    (images / f"{train[10]}.jpg").write_bytes(whole)
    assert "images changed" in foldsmith(small_project, *RUN, "--dry-run").stdout


def test_a_fold_table_that_is_named_but_not_there(small_project):
    override = "100:globals/meta_file=input/none.csv"
    lines = errors_of(foldsmith(small_project, *RUN, override))
    assert len(lines) == 1 and "input/none.csv: no such file; see globals/meta_file" in lines[0]
    assert not (small_project / "output").exists()
