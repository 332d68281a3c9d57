"""Deferring the import of a module until one of its functions is called."""

import importlib
import sys
from types import ModuleType
from typing import Any


def later(module: str, function: str) -> None:
    """Defer the import of a module that another package imports for a single function.

    Until the function is called, a placeholder stands in `sys.modules`. A module that was imported
    already stays as it is.

    Args:
        module: Name of the module.
        function: Name of the function.
    """

    def call(*arguments: Any, **named: Any) -> Any:
        if sys.modules.get(module) is deferred:
            del sys.modules[module]
        return getattr(importlib.import_module(module), function)(*arguments, **named)

    deferred = ModuleType(module, f"Placeholder until {function} is called.")
    setattr(deferred, function, call)
    sys.modules.setdefault(module, deferred)
