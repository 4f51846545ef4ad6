"""Port-forward and exec: what a client's WebSocket carries."""

from __future__ import annotations

import asyncio
import json
import struct
import zlib
from collections.abc import AsyncIterator
from typing import Any

from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection

from tidegate import vtime
from tidegate.kube import wire
from tidegate.kube.exchange import Request, Response, whole
from tidegate.lab.apiserver.spdy import DICTIONARY
from tidegate.lab.apiserver.streams import Backends
from tidegate.lab.apiserver.terminals import NotRunnable, Terminal
from tidegate.lab.runtime.logs import LogOptions

from .api_world import POD, World, pod

SERVER = ("127.16.0.1", 6443)


class Socket:
    """A client's WebSocket to the server, over the virtual network."""

    async def open(self, path: str, protocol: str) -> int:
        self.reader, self.writer = await asyncio.open_connection(*SERVER)
        lines = [
            f"GET {path} HTTP/1.1", "host: lab", "upgrade: websocket", "connection: Upgrade",
            "sec-websocket-version: 13", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
            f"sec-websocket-protocol: {protocol}",
        ]  # fmt: skip
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        self.head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        self.connection = Connection(ConnectionType.CLIENT)
        self.messages: list[bytes] = []
        return int(self.head.split()[1])

    def send(self, message: bytes) -> None:
        self.writer.write(self.connection.send(BytesMessage(data=message)))

    async def receive(self) -> bytes | None:
        while not self.messages:
            data = await self.reader.read(65_536)
            if not data:
                return None
            self.connection.receive_data(data)
            for event in self.connection.events():
                if isinstance(event, BytesMessage):
                    self.messages.append(bytes(event.data))
                elif isinstance(event, CloseConnection):
                    return None
        return self.messages.pop(0)

    async def channels(self) -> dict[int, bytes]:
        """Everything said on each channel until the server says good-bye."""
        found: dict[int, bytes] = {}
        while (message := await self.receive()) is not None:
            found[message[0]] = found.get(message[0], b"") + message[1:]
        return found


def story(tell: Any, execute: Any = None) -> None:
    async def told() -> None:
        world = World(Backends(execute=execute))
        async with wire.serving(world.server.exchange, *SERVER):
            await world.create(POD, pod())
            await world.schedule("p")
            await world.patch(f"{POD}/p/status", {"status": {"phase": "Running", "podIP": "127.17.1.1"}})
            await tell(world)

    vtime.run(told())


class Spdy:
    """kubectl's side of the tunnel, independent of the server's framing."""

    def __init__(self) -> None:
        self.deflate = zlib.compressobj(zdict=DICTIONARY)
        self.pending = b""

    def open(self, stream: int, kind: str, port: int) -> bytes:
        headers = {"streamtype": kind, "port": str(port), "requestid": "0"}
        block = struct.pack(">I", len(headers))
        for name, value in headers.items():
            block += struct.pack(">I", len(name)) + name.encode() + struct.pack(">I", len(value)) + value.encode()
        packed = self.deflate.compress(block) + self.deflate.flush(zlib.Z_SYNC_FLUSH)
        return struct.pack(">HHIIIH", 0x8003, 1, 10 + len(packed), stream, 0, 0) + packed

    def data(self, stream: int, payload: bytes, flags: int = 0) -> bytes:
        return struct.pack(">II", stream, flags << 24 | len(payload)) + payload

    async def bodies(self, socket: Socket, closed: set[int]) -> dict[int, bytes]:
        """What each stream carried until all of ``closed`` have ended."""
        found: dict[int, bytes] = {}
        while closed and (message := await socket.receive()) is not None:
            self.pending += message
            while len(self.pending) >= 8:
                first, second = struct.unpack_from(">II", self.pending)
                length = second & 0xFFFFFF
                body, self.pending = self.pending[8 : 8 + length], self.pending[8 + length :]
                if not first >> 31:
                    found[first] = found.get(first, b"") + body
                    if second >> 24 & 1:
                        closed.discard(first)
        return found


async def _hello(request: Request) -> Response:
    return whole(200, b"hello", "text/plain")


def test_a_forwarded_port_is_the_pods_port():
    async def tell(world: World) -> None:
        await wire.serve(_hello, "127.17.1.1", 8080)
        socket, spdy = Socket(), Spdy()
        assert await socket.open(f"{POD}/p/portforward", "SPDY/3.1+portforward.k8s.io") == 101
        assert "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=" in socket.head
        socket.send(spdy.open(1, "error", 8080) + spdy.open(3, "data", 8080))
        socket.send(spdy.data(3, b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))
        found = await spdy.bodies(socket, {1, 3})
        assert found[3].endswith(b"hello")
        assert found[1] == b""

    story(tell)


def test_a_port_nobody_listens_on_is_told_on_the_error_stream():
    async def tell(world: World) -> None:
        socket, spdy = Socket(), Spdy()
        await socket.open(f"{POD}/p/portforward", "SPDY/3.1+portforward.k8s.io")
        socket.send(spdy.open(1, "error", 9) + spdy.open(3, "data", 9))
        found = await spdy.bodies(socket, {1, 3})
        assert found[1].startswith(b"error forwarding port 9 to pod p")

    story(tell)


def test_a_pod_that_does_not_run_forwards_nothing():
    async def tell(world: World) -> None:
        await world.create(POD, pod("q"))
        socket = Socket()
        assert await socket.open(f"{POD}/q/portforward", "SPDY/3.1+portforward.k8s.io") == 400

    story(tell)


async def _execute(pod: dict[str, Any], container: str, terminal: Terminal) -> int:
    if terminal.command == ("nosuch",):
        raise NotRunnable('exec: "nosuch": executable file not found in $PATH')
    if terminal.command == ("cat",):
        while chunk := await terminal.read():
            await terminal.write(chunk)
        return 0
    await terminal.write(f"{pod['metadata']['name']}/{container}".encode())
    await terminal.write_error(b"bad")
    return 3


def test_a_command_writes_to_its_channels_and_its_exit_code_is_in_the_status():
    async def tell(world: World) -> None:
        socket = Socket()
        query = "command=sh&command=-c&command=x&container=c&stdout=true&stderr=true"
        assert await socket.open(f"{POD}/p/exec?{query}", "v5.channel.k8s.io, v4.channel.k8s.io") == 101
        assert "sec-websocket-protocol: v5.channel.k8s.io" in socket.head
        found = await socket.channels()
        assert (found[1], found[2]) == (b"p/c", b"bad")
        status = json.loads(found[3])
        assert (status["reason"], status["details"]["causes"]) == (
            "NonZeroExitCode", [{"reason": "ExitCode", "message": "3"}],
        )  # fmt: skip

    story(tell, _execute)


def test_stdin_ends_when_the_client_closes_its_channel():
    async def tell(world: World) -> None:
        socket = Socket()
        await socket.open(f"{POD}/p/exec?command=cat&stdin=true&stdout=true", "v5.channel.k8s.io")
        socket.send(b"\x00some ")
        socket.send(b"\x00bytes")
        socket.send(b"\xff\x00")
        found = await socket.channels()
        assert found[1] == b"some bytes"
        assert json.loads(found[3])["status"] == "Success"

    story(tell, _execute)


def test_a_command_that_cannot_start_says_why():
    async def tell(world: World) -> None:
        socket = Socket()
        await socket.open(f"{POD}/p/exec?command=nosuch", "v4.channel.k8s.io")
        status = json.loads((await socket.channels())[3])
        assert (status["status"], "not found in $PATH" in status["message"]) == ("Failure", True)

    story(tell, _execute)


def _written(namespace: str, name: str, container: str, options: LogOptions) -> AsyncIterator[bytes]:
    async def chunks() -> AsyncIterator[bytes]:
        yield f"{container} {options.follow} {options.tail_lines}".encode()

    return chunks()


def test_attach_follows_what_the_container_writes_from_now_on():
    async def tell(world: World) -> None:
        world.backends.logs = _written
        socket = Socket()
        assert await socket.open(f"{POD}/p/attach?container=c&stdout=true", "v5.channel.k8s.io") == 101
        found = await socket.channels()
        assert found[1] == b"c True 0"
        assert json.loads(found[3])["status"] == "Success"

    story(tell)


def test_exec_is_refused_before_the_upgrade():
    async def tell(world: World) -> None:
        assert (await world.ask("GET", f"{POD}/p/exec?command=x")).status == 400
        socket = Socket()
        assert await socket.open(f"{POD}/nosuch/exec?command=x", "v5.channel.k8s.io") == 404
        assert await Socket().open(f"{POD}/p/exec?command=x&container=no", "v5.channel.k8s.io") == 400
        assert await Socket().open(f"{POD}/p/exec?command=x", "v9.channel.k8s.io") == 400

    story(tell, _execute)
