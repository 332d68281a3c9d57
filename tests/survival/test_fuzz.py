"""Damaged CSVs, YAML and images: an answer or an error for people, never another exception."""

import os

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from small_project import EXPERIMENTS, PROJECT, make_project

from foldsmith.config import Experiment
from foldsmith.config.check import check_experiment
from foldsmith.data.images import decode
from foldsmith.data.table_checks import table_problems
from foldsmith.errors import DataError, FoldsmithError
from foldsmith.project import ProjectFolder
from foldsmith.run.plan import plan_of
from foldsmith.steps.registry import types_of

# `FUZZ=20 make survive` tries twenty times as much.
MANY = int(os.environ.get("FUZZ", "1"))
FUZZ = {"deadline": None, "suppress_health_check": list(HealthCheck)}

TOKENS = [
    *(b"", b",", b'"', b"\n", b"\r\n", b"\0", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"NaN", b"-1"),
    *(b"1e999", b"../", b"'", b";", b"\t", b"9" * 400, b"\xe3\x81\x82", b"{", b"}", b"%s", b"=1+1"),
]
YAML_TOKENS = [
    *("", ":", ": ", "- ", "\n", "  ", "{", "}", "[", "]", "&a", "*a", "!!python/object:os.system"),
    *("@/", "@../..", "@/model.x.y", "null", "~", "true", "1e400", "-1", "'", '"', "#", "|", "%"),
    *("type: ", "import: ", "foldsmith:", "\t", "\u3042", "a: &a [*a]", "<<: ", "? ", "---\n"),
]


@st.composite
def edited(draw, original, tokens):
    """Return a text in which pieces were cut, doubled or replaced by tokens."""
    text = original
    for _ in range(draw(st.integers(1, 5))):
        start = draw(st.integers(0, len(text)))
        length = draw(st.integers(0, 30))
        piece = draw(st.sampled_from([*tokens, text[start : start + length]]))
        keep = draw(st.sampled_from([0, length]))
        text = text[:start] + piece + text[start + keep :]
    return text


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory, small_images):
    return make_project(tmp_path_factory.mktemp("fuzz") / "project", small_images)


@settings(max_examples=300 * MANY, **FUZZ)
@given(data=st.data())
def test_tables(fuzzed, data):
    name = data.draw(st.sampled_from(["train.csv", "test.csv"]))
    path = fuzzed / "input" / name
    original = path.read_bytes()
    path.write_bytes(data.draw(edited(original, TOKENS)))
    try:
        problems = table_problems(ProjectFolder.open(fuzzed))
    finally:
        path.write_bytes(original)
    assert all(name in line or "train.csv" in line for line in problems), problems
    assert all(len(line) < 2000 and "\n" not in line for line in problems)


@settings(max_examples=300 * MANY, **FUZZ)
@given(data=st.data())
def test_experiment_files(fuzzed, data):
    name = data.draw(st.sampled_from(list(EXPERIMENTS)))
    path = fuzzed / "exp_config" / f"{name}.yml"
    original = path.read_text()
    path.write_text(data.draw(edited(original, YAML_TOKENS)), encoding="utf-8")
    project = ProjectFolder.open(fuzzed)
    try:
        check_experiment(Experiment.load(project, path), types_of(project))
        plan_of(project, "exp_config/900.yml")
    except FoldsmithError as error:
        assert str(error).strip()
    finally:
        path.write_text(original)


@settings(max_examples=200 * MANY, **FUZZ)
@given(text=edited(yaml.safe_dump(PROJECT, sort_keys=False), YAML_TOKENS))
def test_project_files(fuzzed, text):
    path = fuzzed / "project.yml"
    original = path.read_text()
    path.write_text(text, encoding="utf-8")
    try:
        table_problems(ProjectFolder.open(fuzzed))
    except FoldsmithError as error:
        assert str(error).strip()
    finally:
        path.write_text(original)


@settings(max_examples=200 * MANY, **FUZZ)
@given(override=edited("model/base_name=resnet18d", YAML_TOKENS))
def test_overrides(fuzzed, override):
    project = ProjectFolder.open(fuzzed)
    try:
        check_experiment(
            Experiment.load(project, "exp_config/100.yml", [override]), types_of(project)
        )
    except FoldsmithError as error:
        assert str(error).strip()


@pytest.fixture(scope="module")
def jpeg(small_images):
    return sorted((small_images / "photos").glob("*.jpg"))[0].read_bytes()


@settings(max_examples=500 * MANY, **FUZZ)
@given(data=st.data())
def test_image_bytes(fuzzed, jpeg, data):
    content = bytearray(jpeg)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    path = fuzzed / "fuzzed.jpg"
    path.write_bytes(bytes(content))
    try:
        image = decode(path)
    except DataError as error:
        assert "fuzzed.jpg: not a readable image" in str(error)
    else:
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


@settings(max_examples=200 * MANY, **FUZZ)
@given(data=st.data())
def test_images_that_were_cut_short(fuzzed, jpeg, data):
    suffix = data.draw(st.sampled_from([".jpg", ".png", ".webp", ".tif", ".bmp"]))
    whole = jpeg
    if suffix != ".jpg":
        image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        whole = cv2.imencode(suffix, image)[1].tobytes()
    kept = data.draw(st.integers(0, len(whole) - 1))
    # The last bytes may be padding or a mark of the end, without which nothing is lost.
    assume(kept < 0.95 * len(whole))
    path = fuzzed / f"short{suffix}"
    path.write_bytes(whole[:kept])
    with pytest.raises(DataError, match="not a readable image"):
        decode(path)
