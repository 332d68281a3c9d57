"""Importing timm without torch's compiler, which takes as long as torch itself.

timm and torchvision import ``torch._dynamo`` for two functions: a decorator that excludes functions
from compilation, and a check in operations that foldsmith does not use. Here both import it when
they are needed.
"""

import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

from foldsmith.utils.lazy_import import later

_COMPILER = "torch._dynamo"


def import_timm() -> ModuleType:
    """Return the module ``timm``."""
    if "timm" in sys.modules or _COMPILER in sys.modules:
        return importlib.import_module("timm")
    with _without_compiler():
        return importlib.import_module("timm")


@contextmanager
def _without_compiler() -> Iterator[None]:
    """Keep decorators and torchvision from importing the compiler."""
    utils = f"{_COMPILER}.utils"
    later(utils, "is_compile_supported")
    deferred, disable = sys.modules[utils], torch.compiler.disable
    torch.compiler.disable = _disable_later(disable)
    try:
        yield
    finally:
        torch.compiler.disable = disable
        if sys.modules.get(utils) is deferred:
            del sys.modules[utils]


def _disable_later(disable: Callable[..., Any]) -> Callable[..., Any]:
    """Return the decorator ``torch.compiler.disable``, applied when there is a compiler."""

    def decorator(
        function: Callable[..., Any] | None = None, recursive: bool = True, **options: Any
    ) -> Any:
        if function is None:
            return functools.partial(decorator, recursive=recursive, **options)

        @functools.wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            if _COMPILER not in sys.modules:  # nothing can be compiled
                return function(*arguments, **named)
            return disable(function, recursive, **options)(*arguments, **named)

        return call

    return decorator
