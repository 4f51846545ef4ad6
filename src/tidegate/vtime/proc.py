"""The one door to /proc: the machine's, or the virtual network's rendered in the same format."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from tidegate.vtime.loop import VirtualLoop

_Arguments = ParamSpec("_Arguments")
_Found = TypeVar("_Found")
_SOCKET_LINK = re.compile(r"socket:\[(\d+)\]")


def _virtual() -> VirtualLoop | None:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return None
    return loop if isinstance(loop, VirtualLoop) else None


def is_virtual() -> bool:
    """Whether we run on a ``VirtualLoop``: then nothing of the machine below us is ours to look at."""
    return _virtual() is not None


async def to_thread(
    work: Callable[_Arguments, _Found], *arguments: _Arguments.args, **named: _Arguments.kwargs
) -> _Found:
    """``asyncio.to_thread``; in virtual time, which has none, the work is done at once and takes no time."""
    if is_virtual():
        return work(*arguments, **named)
    return await asyncio.to_thread(work, *arguments, **named)


def read_text(path: str) -> str:
    """The text of a file under /proc. Raises ``OSError`` as ``open`` does."""
    loop = _virtual()
    if loop is not None:
        return loop.network.read_text(path)
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read()


def socket_inodes(pid: int) -> frozenset[int]:
    """Inodes of the sockets process ``pid`` holds open (Linux: links in /proc/PID/fd). Raises ``OSError``."""
    loop = _virtual()
    if loop is not None:
        return loop.network.socket_inodes(pid)
    found = []
    folder = f"/proc/{pid}/fd"
    for name in os.listdir(folder):
        try:
            link = _SOCKET_LINK.match(os.readlink(f"{folder}/{name}"))
        except OSError:  # closed between the listing and the read
            continue
        if link:
            found.append(int(link[1]))
    return frozenset(found)
