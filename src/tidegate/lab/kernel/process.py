"""The kernel process: serves every node's kernel until SIGTERM.

Environment: ``TIDEGATE_KERNEL_DIR`` (an existing folder, for the sockets), ``TIDEGATE_KERNEL_JOURNAL`` (a JSON-lines
file, optional), ``TIDEGATE_SEED`` (which endpoint a connection gets; default 0).
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from tidegate import vtime
from tidegate.lab.journal import Journal
from tidegate.lab.kernel.control import Control

_JOURNAL_KEPT = 1_000
"""Entries kept in memory too: the file is what is read."""


async def main(program: vtime.Program) -> int:
    """Entrypoint of the kernel process."""
    journal_path = program.env.get("TIDEGATE_KERNEL_JOURNAL")
    journal = Journal(Path(journal_path) if journal_path else None, keep=_JOURNAL_KEPT)
    directory = Path(program.env["TIDEGATE_KERNEL_DIR"])
    control = Control(directory, int(program.env.get("TIDEGATE_SEED", "0")), journal)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await control.serve()
    program.log("kernel: ready")
    try:
        await stopping.wait()
    finally:
        control.close()
        journal.close()
    return 0
