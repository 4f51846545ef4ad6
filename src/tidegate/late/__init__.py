"""Public names of a package, each imported when it is first used.

A command pays, in time, for what it imports: the verbs of ``tidegate.client`` together are 0.05 s of a core, and three
times that on a busy machine. Two ways keep start-up short, and there is no third: a package that gives names of its
modules does it by ``late``; a function that few callers reach imports what it needs in its body.
``tests/cli/test_startup.py`` holds what a command may import.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping


def late(package: str, module_of: Mapping[str, str]) -> Callable[[str], object]:
    """A package's ``__getattr__`` (PEP 562). ``module_of``: name -> module of the package that has it. No name may be a
    module's: that one is the package's attribute as soon as anybody has imported it."""

    def found(name: str) -> object:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{module_of[name]}"), name)

    return found
