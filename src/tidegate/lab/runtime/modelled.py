"""Commands under virtual time: the handful that hooks, probes and test pods use, modelled, not run.

Known: ``sleep N``, ``true``, ``false``, ``exit N``, ``echo``, ``cat``, ``trap`` of TERM, and ``sh -c`` of those
joined by ``;``, ``&&`` or line feeds. Anything else is taken for a server: it runs until it is told to stop.
"""

from __future__ import annotations

import asyncio
import re
import shlex
import signal
from collections.abc import Awaitable, Callable, Sequence

from tidegate.vtime import Entrypoint, Program

SHELLS = {"sh", "bash", "dash", "/bin/sh", "/bin/bash", "/bin/dash"}
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


class _Exit(Exception):
    """``exit N``."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def seconds(text: str) -> float:
    """``sleep``'s argument: ``5``, ``0.5``, ``2m``, ``infinity``. Raises ``ValueError``."""
    if text in ("infinity", "inf"):
        return 10 * 365 * 86_400.0
    unit = _UNITS.get(text[-1:], 0.0)
    return float(text[:-1]) * unit if unit else float(text)


def model(argv: Sequence[str]) -> Entrypoint:
    """An entry point that behaves as the command would."""

    async def main(program: Program) -> int:
        try:
            return await _run(tuple(argv), program)
        except _Exit as leaving:
            return leaving.code

    return main


async def _run(argv: tuple[str, ...], program: Program) -> int:
    if not argv:
        return 0
    name = argv[0].rpartition("/")[2]
    if argv[0] in SHELLS and len(argv) >= 3 and argv[1].startswith("-") and argv[1].endswith("c"):
        return await _script(argv[2], program)
    command = _COMMANDS.get(name)
    if command is not None:
        return await command(argv[1:], program)
    await asyncio.get_running_loop().create_future()
    return 0


async def _script(text: str, program: Program) -> int:
    """Run statements in order; ``&&`` skips the next one after a failure."""
    if re.match(r"\s*(while|until|for)\b", text):
        return await _run(("a-loop",), program)
    code = 0
    skip = False
    for part in re.split(r"(;|&&|\n)", text):
        if part in (";", "\n"):
            skip = False
        elif part == "&&":
            skip = code != 0
        elif part.strip() and not skip:
            words = shlex.split(part)
            code = await _run(tuple(words[1:] if words[0] == "exec" else words), program)
    return code


async def _sleep(words: tuple[str, ...], program: Program) -> int:
    del program
    try:
        await asyncio.sleep(sum(seconds(word) for word in words))
    except ValueError:
        return 1
    return 0


async def _echo(words: tuple[str, ...], program: Program) -> int:
    program.log(" ".join(word for word in words if not word.startswith(">")))
    return 0


async def _true(words: tuple[str, ...], program: Program) -> int:
    del words, program
    return 0


async def _false(words: tuple[str, ...], program: Program) -> int:
    del words, program
    return 1


async def _exit(words: tuple[str, ...], program: Program) -> int:
    del program
    raise _Exit(int(words[0]) if words else 0)


async def _trap(words: tuple[str, ...], program: Program) -> int:
    """``trap '' TERM`` ignores the signal; a trap with an action is ignored too, its action never run."""
    del program
    if any(word in ("TERM", "SIGTERM", "15") for word in words[1:]):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: None)
    return 0


_COMMANDS: dict[str, Callable[[tuple[str, ...], Program], Awaitable[int]]] = {
    "sleep": _sleep,
    "echo": _echo,
    "true": _true,
    ":": _true,
    "cat": _true,
    "false": _false,
    "exit": _exit,
    "trap": _trap,
}
