"""What a process of ours is handed, whichever runtime starts it."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field


def _no_log(line: str) -> None:
    del line


@dataclass(frozen=True, slots=True)
class Program:
    """Arguments, environment and log of one process. ``log`` takes one line without its line feed."""

    argv: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    log: Callable[[str], None] = _no_log


Entrypoint = Callable[[Program], Awaitable[int]]
"""``async def main(program) -> exit code``."""


def entrypoint(name: str) -> Entrypoint:
    """Load an entrypoint named "module:function"; imports the module, so call it late."""
    module, _, function = name.partition(":")
    loaded: Entrypoint = getattr(importlib.import_module(module), function)
    return loaded
