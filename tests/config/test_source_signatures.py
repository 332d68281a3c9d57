"""Signatures that are read from the source, against those of the imported callables."""

import inspect

import pytest

from foldsmith.config.source_signatures import source_signature
from foldsmith.config.values import Arguments, _imported_arguments
from foldsmith.steps.registry import LIBRARY_TYPES

PLACES = {name: place for name in LIBRARY_TYPES if (place := LIBRARY_TYPES.place(name))}
VALUES = (1, 0.5, "x", True, None, [1, 2], ["a"], [[1, 2], [3, 4]], {"a": 1}, [], "area")


def of_source(name):
    signature = source_signature(*PLACES[name].split(":"))
    assert signature is not None, f"{name}: its source cannot be followed"
    return signature


def known(signature):
    """What a check uses of each parameter; keywords may come in another order."""
    return {
        name: (each.kind, each.default is inspect.Parameter.empty, each.default is None)
        for name, each in signature.parameters.items()
    }


@pytest.mark.parametrize("name", PLACES)
def test_arguments_are_those_of_the_imported_type(name):
    assert known(of_source(name)) == known(inspect.signature(LIBRARY_TYPES[name]))


@pytest.mark.parametrize("name", PLACES)
def test_wrong_values_are_found_in_the_source_too(name):
    """Sometimes more of them: hints that need what is imported for type checkers alone."""
    imported, read = _imported_arguments(LIBRARY_TYPES[name]), Arguments(of_source(name))
    for argument in imported.named:
        for value in VALUES:
            expected = list(imported.value_problems({argument: value}))
            found = list(read.value_problems({argument: value}))
            assert bool(found) >= bool(expected), (argument, value, expected)
            plain = [text for text in expected if "a {type" not in text and "keys" not in text]
            if plain and "{type" not in "".join(found):
                assert found == expected


def test_what_cannot_be_followed_is_left_to_the_import():
    assert source_signature("foldsmith.config.values", "nothing") is None
    assert source_signature("no_such_package", "anything") is None
    assert source_signature("foldsmith.cli.main", "EPILOG") is None
