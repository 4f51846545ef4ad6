"""Kind ``haproxy``: each replica's Runtime API, over TCP or a UNIX socket, read with ``dataplane.haproxy``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec

from tidegate.dataplane import haproxy
from tidegate.dataplane.facts import Facts
from tidegate.kube.errors import Unreachable
from tidegate.model.endpointslice import EndpointSlice
from tidegate.observers.external import Fencing, Question, Replica, Spec, host_and_port, replicas_of
from tidegate.observers.options import decode_options

CONTROLLERS = ("controller/haproxy.org/ingress-controller", "controller/haproxy-ingress.github.io/controller")
DUMP_BYTES_MAX = 64 * 1024 * 1024
UNIX = "unix:"


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    covers: tuple[str, ...] = CONTROLLERS


class HAProxy:
    """Observer of kind ``haproxy``. A controller changes server after server, and a pass may be half done: hence a
    double fence. The process before a reload, which serves what it has to the end, is not asked: the pod's sockets
    show it."""

    fencing = Fencing.DOUBLE
    additions = "listed"

    def __init__(self, spec: Spec) -> None:
        self._where = spec.where
        self.covers = decode_options(spec, Options).covers

    def replicas(self, slices: Iterable[EndpointSlice]) -> tuple[Replica, ...]:
        return replicas_of(self._where, slices)

    async def ask(self, replica: Replica, question: Question) -> Facts:
        """Raises ``Unreachable``."""
        try:
            async with asyncio.timeout(question.timeout_seconds):
                dump = await _dump(replica.address)
        except TimeoutError as error:
            raise Unreachable(f"{replica.address}: no answer within {question.timeout_seconds:g} s") from error
        except OSError as error:
            raise Unreachable(f"{replica.address}: {error.strerror or error}") from error
        return haproxy.parse(dump, question.install, source=replica.name)


async def _dump(address: str) -> str:
    if address.startswith(UNIX):
        reader, writer = await asyncio.open_unix_connection(address.removeprefix(UNIX))
    else:
        reader, writer = await asyncio.open_connection(*host_and_port(address))
    try:
        writer.write(f"{haproxy.COMMAND}\n".encode())
        found = bytearray()
        while chunk := await reader.read(65_536):
            found += chunk
            if len(found) > DUMP_BYTES_MAX:
                raise Unreachable(f"{address}: more than {DUMP_BYTES_MAX} bytes")
    finally:
        writer.close()
    return found.decode(errors="replace")
