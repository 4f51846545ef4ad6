"""The lab process of a real lab: API server, controllers, kubelets and proxies on one loop, until SIGTERM."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tidegate import vtime
from tidegate.lab.config import LabConfig
from tidegate.lab.folder import LabError, LabFolder
from tidegate.lab.images import Images
from tidegate.lab.journal import Journal
from tidegate.lab.runtime.logs import LogBook
from tidegate.lab.runtime.real import RealRuntime

if TYPE_CHECKING:
    from tidegate.lab.network.fabric import Fabric

_JOURNAL_KEPT = 1_000
"""Entries kept in memory too: the file is what is read."""


@dataclass(frozen=True, slots=True)
class Entered:
    """A lab's namespaces, which this process is in, and the API server's sockets in others."""

    fabric: Fabric
    sockets: tuple[socket.socket, ...]
    tls_sockets: tuple[socket.socket, ...] = ()


def _to_own_log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def enter(config: LabConfig, *, has_tls: bool = False) -> Entered:
    """Make the network of a lab that has namespaces, and put this process, which has one thread, into it.

    The API server's socket on the host's address is made before: it stays the host's. It has one of that address in
    every node's and client's namespace too, so that one kubeconfig is good everywhere. Raises ``OSError``.
    """
    from tidegate.lab.network import namespaces
    from tidegate.lab.network.fabric import Fabric

    addressing = config.addressing
    ports = [addressing.api_port, *([addressing.tls_port] if has_tls else [])]
    found = {port: [namespaces.bound(addressing.host, port)] for port in ports}
    fabric = Fabric.build(addressing, config.node_names)
    for namespace in (fabric.client, *(node.namespace for node in fabric.nodes.values())):
        with namespace.inside():
            for port in ports:
                found[port].append(namespaces.bound(addressing.host, port))
    return Entered(fabric, tuple(found[addressing.api_port]), tuple(found.get(addressing.tls_port, ())))


async def serve(
    config: LabConfig, folder: LabFolder, announce: Callable[[], None], entered: Entered | None = None
) -> int:
    """Run a lab; ``announce`` once it is up. Its kernel process serves in ``folder.sockets``, unless ``entered``.

    Raises ``LabError`` when the API server's port is taken.
    """
    book = LogBook()
    runtime = RealRuntime(config.name, Images(config.addons).modules(), book)
    runtime.open()
    # Late, so that the zygote loads its modules (0.2 s) while this process loads its own (0.2 s).
    from tidegate.kube import wire
    from tidegate.lab.assembly import Ground, Lab

    journal = Journal(folder.journal, keep=_JOURNAL_KEPT)
    network = None
    if entered is not None:
        from tidegate.lab.network.kernel import KernelNetwork

        network = KernelNetwork(entered.fabric, config.proxy, journal)
    ground = Ground(
        runtime, book, journal, folder.sockets, folder.path,
        logs_folder=str(folder.logs), log=_to_own_log, network=network,
    )  # fmt: skip
    if folder.authority_file.exists():
        config = replace(config, authority=folder.authority_file.read_text())
    lab = Lab(config, ground)
    addressing = config.addressing
    port = addressing.api_port
    try:
        servers = [await wire.serve(lab.exchange, addressing.api_host, port)]
        for one in entered.sockets if entered is not None else ():
            servers.append(await wire.serve_on(lab.exchange, one))
        if config.authority:
            from tidegate.lab.certificates import server_context

            port, tls = addressing.tls_port, server_context(folder.path)
            servers.append(await wire.serve(lab.exchange, addressing.api_host, port, tls=tls))
            for one in entered.tls_sockets if entered is not None else ():
                servers.append(await wire.serve_on(lab.exchange, one, tls))
    except OSError as error:
        await runtime.close()
        raise LabError(
            f"{addressing.api_host}:{port} is taken ({error.strerror}); choose another with --port"
        ) from error
    try:
        await lab.network.ready()
        async with vtime.Nursery() as nursery:
            nursery.start(lab.run(), name="lab")
            nursery.start(_stop_on_signal(nursery), name="signals")
            await lab.ready.wait()
            announce()
    finally:
        for server in servers:
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
