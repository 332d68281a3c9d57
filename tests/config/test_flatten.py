from foldsmith.utils.flatten import flatten


def test_every_value_has_its_path():
    tree = {"globals": {"seed": 1, "val_fold": None}, "list": [{"p": 0.5}, 3]}
    assert flatten(tree) == {
        "globals/seed": 1,
        "globals/val_fold": None,
        "list/0/p": 0.5,
        "list/1": 3,
    }


def test_empty_containers_are_values():
    assert flatten({"a": {}, "b": [], "c": {"d": {}}}) == {"a": {}, "b": [], "c/d": {}}
