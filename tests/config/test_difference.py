from foldsmith.config.difference import differing_keys

TREE = {"globals": {"seed": 1, "val_fold": 0}, "optimizer": {"lr": 0.1}, "list": [{"p": 0.5}, {}]}


def test_equal_trees_do_not_differ():
    assert differing_keys(TREE, {**TREE}) == []


def test_every_difference_is_named():
    other = {"globals": {"seed": 2, "val_fold": 0}, "list": [{"p": 0.4}, {}]}
    assert differing_keys(TREE, other) == ["globals/seed", "list/0/p", "optimizer/lr"]


def test_keys_without_effect_are_left_out():
    other = {**TREE, "globals": {"seed": 1, "val_fold": 3}, "loader": {"train": {"num_workers": 2}}}
    assert differing_keys(TREE, other) == []
