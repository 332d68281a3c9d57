import pytest
import yaml
from bundled import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st

from foldsmith.errors import ConfigError
from foldsmith.utils import yaml_io
from foldsmith.utils.yaml_io import dump_yaml, parse_yaml, read_yaml, scalar_yaml


@pytest.mark.parametrize(
    ("text", "value"), [("2e-5", 2e-5), ("1E3", 1000.0), ("-3.e2", -300.0), ("1.5e-4", 1.5e-4)]
)
def test_exponents_are_numbers(text, value):
    assert parse_yaml(text, "here") == value


@pytest.mark.parametrize("text", ["resnet18d", "1e", "e5", "000_resnet"])
def test_other_words_stay_words(text):
    assert parse_yaml(text, "here") == text


def test_a_key_given_twice_is_refused_with_its_line(tmp_path):
    path = tmp_path / "x.yml"
    path.write_text("a: 1\nb: 2\na: 3\n")
    with pytest.raises(ConfigError, match=r"x\.yml:3: the key 'a' stands here twice"):
        read_yaml(path)


def test_python_objects_are_refused(tmp_path):
    path = tmp_path / "x.yml"
    path.write_text("a: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(ConfigError, match=r"x\.yml:1"):
        read_yaml(path)


@given(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
        st.from_regex(r"[-+]?0?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?", fullmatch=True),
        st.sampled_from(["NO", "yes", "~", "null", "NA", "TRUE", "1:30", "2020-01-01", "=", ""]),
    )
)
def test_a_text_that_is_written_is_read_as_that_text(text):
    value = {"class_names": [text], "column": text}
    for compact in (False, True):
        assert parse_yaml(dump_yaml(value, compact), "here") == value
    assert parse_yaml(f"a: {scalar_yaml(text)}", "here") == {"a": text}
    assert "\n" not in scalar_yaml(text)


def test_round_trip():
    value = {"a": [1, 2.5e-5, None, "x: y", True], "b": {"c": "@/a"}}
    assert parse_yaml(dump_yaml(value), "here") == value


RECIPES = sorted(REPOSITORY.glob("src/foldsmith/config/recipes/*.yml"))


@pytest.mark.parametrize("text", ["a: [1, b: 2]", "010: 1e5", "{a: ~, b: 'x y'}", "- &x 1\n- *x"])
def test_both_parsers_read_the_same(text, monkeypatch):
    assert issubclass(yaml_io._FastLoader, yaml.CSafeLoader)
    texts = [text, *(path.read_text() for path in RECIPES)]
    fast = [parse_yaml(text, "here") for text in texts]
    monkeypatch.setattr(yaml_io, "_FastLoader", yaml_io._Loader)
    assert [parse_yaml(text, "here") for text in texts] == fast


@pytest.mark.parametrize("text", ["\n\ufeffa: b", "a:\tb\nc: d\te", "a: [b"])
def test_without_libyaml_the_same_value_or_error(text, monkeypatch):
    def outcome():
        try:
            return parse_yaml(text, "here")
        except ConfigError as error:
            return str(error)

    found = outcome()
    monkeypatch.setattr(yaml_io, "_FastLoader", yaml_io._Loader)
    assert outcome() == found


# libyaml's parser calls itself for each level, and the process would die without a word.
@pytest.mark.parametrize("opened", ["[", "{a: ", "- ", "? "])
def test_nesting_without_end_is_one_line(opened):
    with pytest.raises(ConfigError, match=r"^here:1: .* nested more than 100 deep$"):
        parse_yaml(opened * 200_000, "here")
    with pytest.raises(ConfigError, match="nested"):
        parse_yaml("[" * 101 + "]" * 101, "here")
    assert parse_yaml("[" * 100 + "]" * 100, "here")
