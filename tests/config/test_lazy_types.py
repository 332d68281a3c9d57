import subprocess
import sys

import pytest

from foldsmith.config.lazy_types import LazyTypes
from foldsmith.steps.registry import LIBRARY_TYPES, SUBJECTS


def test_every_name_of_the_registry_is_a_callable():
    assert len(LIBRARY_TYPES) == sum(map(len, SUBJECTS.values()))  # no name stands twice
    assert [name for name in LIBRARY_TYPES if not callable(LIBRARY_TYPES[name])] == []


def test_a_module_is_imported_when_its_type_is_looked_up():
    code = """
import sys
from foldsmith.steps.registry import LIBRARY_TYPES
print("RMSE" in LIBRARY_TYPES, "Nothing" in LIBRARY_TYPES, "torch" in sys.modules)
both = LIBRARY_TYPES | {"Own": int} | LIBRARY_TYPES
print(len(both) - len(LIBRARY_TYPES), both["Own"](), "torch" in sys.modules)
print(LIBRARY_TYPES["MSELoss"].__name__, "torch" in sys.modules, "timm" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.stdout.split() == [
        "True",
        "False",
        "False",
        "1",
        "0",
        "False",
        "MSELoss",
        "True",
        "False",
    ], run.stderr


def test_later_types_win():
    types = LazyTypes({"A": "math:sqrt"}) | {"A": abs}
    assert types["A"] is abs
    with pytest.raises(KeyError):
        types["B"]
