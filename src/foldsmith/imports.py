"""Importing a module when one of its functions is called, in the place of at once."""

import importlib
import sys
from types import ModuleType
from typing import Any


def later(module: str, function: str) -> None:
    """Let a module that others import for one function be imported when that is called.

    Nothing happens if it was imported already.

    Args:
        module: Name of the module.
        function: Name of the function.
    """

    def call(*arguments: Any, **named: Any) -> Any:
        if sys.modules.get(module) is deferred:
            del sys.modules[module]
        return getattr(importlib.import_module(module), function)(*arguments, **named)

    deferred = ModuleType(module, f"Stands for the module until {function} is called.")
    setattr(deferred, function, call)
    sys.modules.setdefault(module, deferred)
