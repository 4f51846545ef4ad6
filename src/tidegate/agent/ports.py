"""The two ports of an agent, and of the coordinator: for each other by certificate, for command lines by token.

Without certificates (a lab, virtual time) both are plain HTTP and the first asks nobody who they are; the second asks
for tokens all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from tidegate.agent.callers import Callers
from tidegate.kube import wire
from tidegate.kube.errors import NoCertificate
from tidegate.kube.exchange import Exchange, Request, Response, whole

if TYPE_CHECKING:
    from ssl import SSLContext

    from tidegate.kube.tls import Credentials

REFRESH_SECONDS = 10.0
"""How often the files are looked at. A certificate is renewed a month before it ends."""
WAIT_SECONDS = 0.5
LEAVE_SECONDS = 3.0
"""The coordinator's questions wait 2 s for news."""


@dataclass(frozen=True, slots=True)
class Doors:
    """Where, and for whom: ``peers`` are the names of certificates that may ask on ``peer_port``."""

    host: str
    peer_port: int
    ask_port: int
    peers: tuple[str, ...]
    is_shared: bool = False
    """Our successor listens on the same ports before we leave (SO_REUSEPORT): either answers for the same node."""


@dataclass(slots=True)
class Ports:
    """Both ports of ``exchange``. ``credentials`` None: no TLS. ``for_peers``: what peers reach instead, who may ask
    more than command lines."""

    doors: Doors
    exchange: Exchange
    callers: Callers
    log: Callable[[str], None]
    credentials: Credentials | None = None
    for_peers: Exchange | None = None
    _servers: list[wire.Server] = field(default_factory=list)

    async def open(self) -> None:
        """Listen, once there is a certificate. Raises ``OSError`` when a port is taken."""
        mutual, under_tls = await self._contexts()
        doors = self.doors
        terms = wire.Terms(
            tls=mutual, peers=doors.peers if mutual else (), is_shared=doors.is_shared, log=self._say("peers' port")
        )
        self._servers.append(
            await wire.serve(_vouched(self.for_peers or self.exchange), doors.host, doors.peer_port, terms)
        )
        terms = wire.Terms(tls=under_tls, is_shared=doors.is_shared, log=self._say("port for command lines"))
        self._servers.append(await wire.serve(self.callers.guarded(self.exchange), doors.host, doors.ask_port, terms))

    async def keep(self) -> None:
        """Take up a renewed certificate, for ever."""
        failure = ""
        while self.credentials is not None:
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                if self.credentials.refresh():
                    self.log("the certificate was renewed")
                failure = ""
            except NoCertificate as error:
                if failure != str(error):
                    failure = str(error)
                    self.log(f"the certificate of before stays in use: {failure}")
        await asyncio.Event().wait()

    async def leave(self) -> None:
        """Whoever asks from now on asks our successor, if it listens; what is asked already is answered, as far as it
        ends soon."""
        for server in self._servers:
            server.stop_listening()
        until = asyncio.get_running_loop().time() + LEAVE_SECONDS
        while any(server.connections for server in self._servers) and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0.05)
        await self.close()

    async def close(self) -> None:
        for server in self._servers:
            await server.close()

    async def _contexts(self) -> tuple[SSLContext | None, SSLContext | None]:
        credentials, failure = self.credentials, ""
        if credentials is None:
            return None, None
        while True:
            with contextlib.suppress(NoCertificate):
                return credentials.server(is_mutual=True), credentials.server(is_mutual=False)
            if not failure:
                failure = "waiting for a certificate"
                self.log(failure)
            await asyncio.sleep(WAIT_SECONDS)

    def _say(self, which: str) -> Callable[[str], None]:
        return lambda line: self.log(f"{which}: {line}")


def credentials_in(folder: str) -> Credentials | None:
    """None where there is no folder: no TLS."""
    if not folder:
        return None
    from tidegate.kube.tls import Credentials  # late: a lab's processes do without ssl

    return Credentials(folder)


def _vouched(exchange: Exchange) -> Exchange:
    """Whoever gets a whole request through is let be; under TLS its certificate vouched for it already."""

    async def answer(request: Request) -> Response:
        if not request.caller.vouch():
            return whole(503, msgspec.json.encode({"error": "too many ask at once"}))
        return await exchange(request)

    return answer
