"""The operator as a pod of a lab: image ``tidegate/operator``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from tidegate import vtime

if TYPE_CHECKING:
    from tidegate.vtime import Program


async def main(program: Program) -> int:
    """``tidegate operator`` of the Python that the lab runs on; modelled where time is.

    A program of its own, not a fork of the lab's: it wants asyncio's own loop for TLS (``kube/wire.py``), where a lab's
    own images run on uvloop, and what it lacks it says as its command line does, in one line.
    """
    if vtime.is_virtual():
        from tidegate.operator import process

        return await process.main(program)
    os.execve(sys.executable, (sys.executable, "-m", "tidegate", "operator"), dict(program.env))
