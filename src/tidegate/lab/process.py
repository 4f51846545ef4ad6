"""The lab process of a real lab: API server, controllers, kubelets and proxies on one loop, until SIGTERM."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable

from tidegate import vtime
from tidegate.lab.config import LabConfig
from tidegate.lab.folder import LabError, LabFolder
from tidegate.lab.images import Images
from tidegate.lab.journal import Journal
from tidegate.lab.runtime.logs import LogBook
from tidegate.lab.runtime.real import RealRuntime

_JOURNAL_KEPT = 1_000
"""Entries kept in memory too: the file is what is read."""


def _to_own_log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


async def serve(config: LabConfig, folder: LabFolder, announce: Callable[[], None]) -> int:
    """Run the lab whose kernel process serves in ``folder.sockets``; ``announce`` once it is up.

    Raises ``LabError`` when the API server's port is taken.
    """
    book = LogBook()
    runtime = RealRuntime(config.name, Images(config.addons).modules(), book)
    runtime.open()
    # Late, so that the zygote loads its modules (0.2 s) while this process loads its own (0.2 s).
    from tidegate.kube import wire
    from tidegate.lab.assembly import Ground, Lab

    journal = Journal(folder.journal, keep=_JOURNAL_KEPT)
    ground = Ground(runtime, book, journal, folder.sockets, folder.path, logs_folder=str(folder.logs), log=_to_own_log)
    lab = Lab(config, ground)
    addressing = config.addressing
    try:
        server = await wire.serve(lab.exchange, addressing.api_host, addressing.api_port)
    except OSError as error:
        await runtime.close()
        raise LabError(
            f"{addressing.api_host}:{addressing.api_port} is taken ({error.strerror}); choose another with --port"
        ) from error
    try:
        await lab.kernel.ready()
        async with vtime.Nursery() as nursery:
            nursery.start(lab.run(), name="lab")
            nursery.start(_stop_on_signal(nursery), name="signals")
            await lab.ready.wait()
            announce()
    finally:
        await server.close()
        await runtime.close()
        journal.close()
    return 0


async def _stop_on_signal(nursery: vtime.Nursery) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    await stopping.wait()
    nursery.cancel()
