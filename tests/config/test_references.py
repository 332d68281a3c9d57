import pytest
import pytorch_pfn_extras as ppe

from foldsmith.config.references import parse_reference, walk_path

TREE = {"a": {"b": [10, 11], "c": {"d": 5}}, "e": 7}


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("@/a/b/1", ["e"]),
        ("@../e", ["a", "x"]),
        ("@c/d", ["a", "x"]),
        ("@../../e", ["a", "c", "x"]),
    ],
)
def test_paths_mean_what_the_config_system_means(text, at):
    path, attributes = parse_reference(text, at)
    assert attributes == []
    tree = {"a": {"b": [10, 11], "c": {"d": 5}}, "e": 7}
    node = walk_path(tree, at[:-1])
    node[at[-1]] = text
    expected = ppe.config.Config(tree)["/" + "/".join(at)]
    assert walk_path(TREE, path) == expected


def test_attributes_are_split_off():
    assert parse_reference("@/model.backbone", ["x"]) == (["model"], ["backbone"])


def test_climbing_above_the_root_is_an_error():
    with pytest.raises(ValueError, match="above the root"):
        parse_reference("@../../../e", ["a", "b"])
