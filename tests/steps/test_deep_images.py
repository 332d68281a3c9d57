"""Images with more than 8 bits per channel, from the folder to statistics and predictions."""

import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from warm import foldsmith

from foldsmith.data.images import decode
from foldsmith.data.loose_images import pixels_of
from foldsmith.errors import DataError
from foldsmith.project import ProjectFolder
from foldsmith.steps.inputs.preprocess import preprocess_inputs
from foldsmith.steps.manifest import differences
from foldsmith.utils.hashing import FileHashes


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A project of 16 images of 12 grey values around 1000, in 16 bits, and one of 8 bits."""
    tmp_path, rng = tmp_path_factory.mktemp("deep"), np.random.default_rng(0)
    (tmp_path / "im").mkdir()
    rows = []
    for k in range(16):
        values = rng.integers(0, 6, (16, 16)) + (6 if k % 2 else 0) + 1000
        Image.fromarray(values.astype(np.uint16)).save(tmp_path / f"im/{k}.png")
        rows.append(f"{k},{k % 2}")
    Image.fromarray(np.full((16, 16), 77, np.uint8)).save(tmp_path / "im/16.png")
    (tmp_path / "t.csv").write_text("\n".join(["id,target", *rows, "16,1"]) + "\n")
    options = ["--images", "im", "--train", "t.csv", "--time", "small"]
    result = foldsmith(tmp_path, "new", "p", *options)
    assert result.returncode == 0, result.stderr
    assert "range    [1000, 1011] becomes 0 to 255" in result.stdout
    return tmp_path / "p"


@pytest.fixture
def deep(made, tmp_path):
    """A copy to change."""
    return shutil.copytree(made, tmp_path / "p", symlinks=True)


def test_deep_images_are_scaled_by_one_range_everywhere(deep, cli):
    assert yaml.safe_load((deep / "project.yml").read_text())["intensity_range"] == [1000, 1011]
    said = cli(deep, "preprocess")
    assert (
        "images with more than 8 bits per channel: 16; intensity_range [1000, 1011]" in said.stdout
    )
    assert "warning: project.yml" not in said.stderr
    info = pd.read_csv(deep / "input/img_info.csv", dtype={"id": str}).set_index("id")
    project = ProjectFolder.open(deep)
    path = deep / "input/images/1.png"
    image = decode(path, project.intensity_range)
    assert len(np.unique(image)) == 6
    np.testing.assert_allclose(info.loc["1", "r_mean"], image.mean(), atol=0.01)
    assert info.loc["16", "r_mean"] == 77
    # New images, whichever way they are handed over, are scaled alike.
    with Image.open(path) as opened:
        forms = [str(path), opened, np.asarray(opened), np.asarray(opened).astype(np.float64)]
        for form in forms:
            np.testing.assert_array_equal(pixels_of(form, "x", project.intensity_range), image)
    with pytest.raises(DataError, match="the models were trained on images of 8 bits"):
        pixels_of(path, "x", None)


def test_a_range_that_is_missing_is_proposed_and_one_that_does_not_fit_is_named(deep, cli):
    file = deep / "project.yml"
    whole = file.read_text()
    file.write_text(whole.replace("intensity_range: [1000, 1011]\n", ""))
    said = cli(deep, "preprocess", code=2).stderr
    (line,) = [line for line in said.splitlines() if "error" in line]
    assert "images with more than 8 bits per channel: 16 of 17" in line
    assert "write them into it: intensity_range: [1000, 1011]" in line
    assert cli(deep, "doctor", code=2).stderr.count("intensity_range: [1000, 1011]") == 1
    assert not (deep / "input/img_info.csv").exists()
    for given, words in (("[0, 65535]", "1 of its 256 steps"), ("[1006, 1011]", "are clipped")):
        file.write_text(whole.replace("[1000, 1011]", given))
        assert words in cli(deep, "preprocess").stderr
    file.write_text(whole.replace("[1000, 1011]", "[1011, 1000]"))
    assert "two finite numbers, the lower one first" in cli(deep, "preprocess", code=2).stderr


def test_another_range_makes_stale(deep):
    file = deep / "project.yml"
    hashes = FileHashes(deep / ".foldsmith/file_hashes")
    old = preprocess_inputs(ProjectFolder.open(deep), hashes)
    file.write_text(file.read_text().replace("[1000, 1011]", "[1000, 1012]"))
    assert differences(old, preprocess_inputs(ProjectFolder.open(deep), hashes)) == [
        "intensity changed"
    ]


def test_files_of_several_pages_are_counted(small_project, cli):
    path = sorted((small_project / "input/photos").glob("*.jpg"))[0]
    pages = [Image.new("RGB", (48, 40), colour) for colour in ("red", "blue")]
    pages[0].save(path, "TIFF", save_all=True, append_images=pages[1:])
    said = cli(small_project, "preprocess").stdout
    assert "note: files with several pages or frames, of which the first is used: 1 (" in said
