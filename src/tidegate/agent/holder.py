"""The holder: a tiny process that keeps the kubelet's preStop call open until the agent ends it.

It stands apart from the agent because the kubelet's hook fails OPEN: a closed connection is SIGTERM at
once (k8s pkg/kubelet/lifecycle/handlers.go, confirmed on a real kubelet). So this file imports the standard
library only and does three things: learn which pod is asking, ask the agent over a UNIX socket, hold. When
the agent is gone it holds for the fallback sleep: a gate is never worse than ``sleep 15``. An agent that is silent
may be starved of CPU and speak again; to wait for it costs nothing until the sleep would have ended.

A pod on its node's network has no address of its own: its call comes straight to 127.0.0.1 and carries a token that is
in the pod's annotations.

Wire to the agent, JSON lines, one connection per hold: ``{"hold": {"ip", "port", "container", "token"?}}``, then from
the agent ``{"heartbeat": n}`` each second and at last ``{"release": {...}}``, confirmed by ``{"answered": n}``.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidegate.vtime import Program

LINE_BYTES_MAX = 4096
"""The kubelet's request line and headers are about 150 bytes; more is not the kubelet."""
HEADER_LINES_MAX = 64
REQUEST_SECONDS = 5.0
HEARTBEATS = 3
"""So many in a row are missing when the agent is silent."""
SO_ORIGINAL_DST = 80
"""linux/netfilter_ipv4.h; the same number for IPv6 (IP6T_SO_ORIGINAL_DST)."""

TOKEN_HEADER = "x-tidegate-gate"
_TOKEN = re.compile(r"[0-9a-f]{32}")
_CONTAINER = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")

Key = tuple[str, str]


class NotAGate(Exception):
    """A call that is not the kubelet's preStop of a gate: answered at once, held never."""


class AgentLost(Exception):
    """The agent is unreachable, silent or speaks garbage: the fallback sleep takes over."""


@dataclass(frozen=True, slots=True)
class HolderSettings:
    """Where the holder listens and how long it waits for whom."""

    host: str = "127.0.0.1"
    """One address, or several by commas: a dual-stack node's redirect arrives at 127.0.0.1 and at ::1."""
    port: int = 15299
    agent_socket: str = "agent.sock"
    original_destination: str = "sockopt"
    """How the pod's IP is learned: "sockopt" (SO_ORIGINAL_DST of a redirect) or "proxy" (PROXY v1 line)."""
    fallback_seconds: float = 15.0
    """What the field sleeps today; counted from the kubelet's call."""
    silence_seconds: float = 3.0
    """Three missed heartbeats; believed once the fallback sleep would have ended. A connection that breaks is no
    silence: an agent that ends is known to be gone at once."""
    holds_max: int = 1024
    """Holds that ask the agent; more of them only sleep. Four times as many connections are refused."""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> HolderSettings:
        """Settings from the ``TIDEGATE_*`` variables below."""
        usual = cls()
        return cls(
            host=env.get("TIDEGATE_HOLDER_HOST", usual.host),
            port=int(env.get("TIDEGATE_HOLDER_PORT", usual.port)),
            agent_socket=env.get("TIDEGATE_AGENT_SOCKET", usual.agent_socket),
            original_destination=env.get("TIDEGATE_ORIGINAL_DESTINATION", usual.original_destination),
            fallback_seconds=float(env.get("TIDEGATE_FALLBACK_SECONDS", usual.fallback_seconds)),
        )


@dataclass(slots=True)
class Hold:
    """One container's preStop call being held. ``waiting`` counts the kubelet's open connections on it."""

    ip: str
    port: int
    container: str
    asked_at: float
    token: str = ""
    outcome: str = ""
    waiting: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def key(self) -> Key:
        return (self.token or self.ip, self.container)


class Holder:
    """All holds of one node by (pod IP, container): a kubelet that asks again joins the hold it left."""

    def __init__(self, settings: HolderSettings, log: Callable[[str], None]) -> None:
        self.settings = settings
        self.holds: dict[Key, Hold] = {}
        self.idle = asyncio.Event()
        self.idle.set()
        self._log = log
        self._connections = 0
        self._tasks: dict[Key, asyncio.Task[None]] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its first byte to our answer. Never raises."""
        self._connections += 1
        try:
            if self._connections > 4 * self.settings.holds_max:
                return await _answer(writer, 503, "too many connections")
            try:
                async with asyncio.timeout(REQUEST_SECONDS):
                    ip, port, first = await self._destination(reader, writer)
                    container, token = await _read_gate_request(reader, first)
            except NotAGate as why:
                return await _answer(writer, 404, str(why))
            if not ip and not token:
                raise ValueError("not redirected, and no token says whose call it is")
            hold = self._join(ip, port, container, token)
            await _wait_or_close(hold, reader)
            if hold.over.is_set():
                await _answer(writer, 200, hold.outcome)
        except (OSError, ValueError, EOFError, TimeoutError, asyncio.LimitOverrunError) as error:
            self._log(f"dropped a connection: {error!r}")
        finally:
            self._connections -= 1
            writer.close()

    async def _destination(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, int, bytes]:
        """Where a redirected call was going, "" for one that came straight here; and what was read of it already."""
        if self.settings.original_destination == "proxy":
            first = await reader.readuntil(b"\n")
            return (*parse_proxy_line(first), b"") if first.startswith(b"PROXY ") else ("", 0, first)
        try:
            ip, port = original_destination(writer.get_extra_info("socket"))
        except FileNotFoundError:  # ENOENT: conntrack knows of no translation
            return "", 0, b""
        return ("" if ip_address(ip).is_loopback else ip), port, b""

    def _join(self, ip: str, port: int, container: str, token: str) -> Hold:
        hold = self.holds.get((token or ip, container))
        if hold is None:
            hold = Hold("" if token else ip, port, container, asyncio.get_running_loop().time(), token)
            asks = len(self.holds) < self.settings.holds_max
            self.holds[hold.key] = hold
            self.idle.clear()
            self._tasks[hold.key] = asyncio.get_running_loop().create_task(self._live(hold, asks))
        return hold

    async def _live(self, hold: Hold, asks: bool) -> None:
        """A hold's life: the agent's release, or the fallback sleep."""
        try:
            try:
                if not asks:
                    raise AgentLost("too many holds to ask the agent")
                hold.outcome = await self._ask_agent(hold)
            except AgentLost as why:
                self._log(f"hold {hold.ip} {hold.container}: {why}; falling back to the sleep")
                remaining = hold.asked_at + self.settings.fallback_seconds - asyncio.get_running_loop().time()
                await asyncio.sleep(max(0.0, remaining))
                hold.outcome = "bypassed"
        finally:
            hold.over.set()
            self.holds.pop(hold.key, None)
            self._tasks.pop(hold.key, None)
            if not self.holds:
                self.idle.set()

    async def _ask_agent(self, hold: Hold) -> str:
        """The agent's verdict; raises AgentLost."""
        silence = self.settings.silence_seconds
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(silence):
                reader, writer = await asyncio.open_unix_connection(self.settings.agent_socket, limit=64 * 1024)
                question = {"ip": hold.ip, "port": hold.port, "container": hold.container}
                question |= {"token": hold.token} if hold.token else {}
                writer.write(json.dumps({"hold": question}).encode() + b"\n")
            while True:
                message: Any = json.loads(await self._line(hold, reader))
                if "release" in message:
                    # Confirmed before the kubelet hears of it, with the count of its connections still
                    # open: an agent that hears nothing back records the hold as dead.
                    writer.write(json.dumps({"answered": hold.waiting}).encode() + b"\n")
                    return str(message["release"]["result"])
        except TimeoutError:
            raise AgentLost(f"the agent said nothing for {silence:g} s") from None
        except (OSError, EOFError, ValueError, KeyError, TypeError, asyncio.LimitOverrunError) as error:
            raise AgentLost(f"the agent is gone: {error!r}") from error
        finally:
            if writer is not None:
                writer.close()

    async def _line(self, hold: Hold, reader: asyncio.StreamReader) -> bytes:
        """The agent's next line. Raises ``AgentLost`` once it is silent and the fallback sleep is over.

        Counted by our own turns and not by the clock alone: where we were not run ourselves, the machine was paused or
        busy, the first turn after it finds what came meanwhile.
        """
        loop = asyncio.get_running_loop()
        reading = loop.create_task(reader.readuntil(b"\n"))
        began, missed = loop.time(), 0
        beat = self.settings.silence_seconds / HEARTBEATS
        try:
            while not reading.done():
                left = hold.asked_at + self.settings.fallback_seconds - loop.time()
                if missed >= HEARTBEATS and left <= 0:
                    raise AgentLost(f"the agent said nothing for {loop.time() - began:.1f} s")
                await asyncio.wait((reading,), timeout=left if 0 < left < beat else beat)
                missed += not 0 < left < beat
            return reading.result()
        finally:
            reading.cancel()


async def _wait_or_close(hold: Hold, reader: asyncio.StreamReader) -> None:
    """Until the hold is over or the kubelet hangs up (which ends nothing: restarted, it asks again)."""
    loop = asyncio.get_running_loop()
    over = loop.create_task(hold.over.wait())
    closed = loop.create_task(_drained(reader))
    hold.waiting += 1
    try:
        await asyncio.wait((over, closed), return_when=asyncio.FIRST_COMPLETED)
    finally:
        hold.waiting -= 1
        over.cancel()
        closed.cancel()


async def _drained(reader: asyncio.StreamReader) -> None:
    try:
        while await reader.read(LINE_BYTES_MAX):
            pass
    except OSError:
        return


async def _read_gate_request(reader: asyncio.StreamReader, first: bytes = b"") -> tuple[str, str]:
    """The container named by ``GET /gate/<container>``, and the pod's token where one is sent; raises NotAGate,
    ValueError, EOFError."""
    words = (first or await reader.readuntil(b"\n")).decode("latin-1").split()
    token = ""
    for _ in range(HEADER_LINES_MAX):
        line = (await reader.readuntil(b"\n")).decode("latin-1").strip()
        if not line:
            break
        name, _, value = line.partition(":")
        if name.lower() == TOKEN_HEADER:
            token = value.strip()
    else:
        raise ValueError("too many header lines")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise ValueError("not HTTP/1")
    path = words[1].partition("?")[0]
    container = path.removeprefix("/gate/")
    if words[0] != "GET" or container == path or _CONTAINER.fullmatch(container) is None:
        raise NotAGate("the gate is GET /gate/CONTAINER")
    if token and _TOKEN.fullmatch(token) is None:
        raise ValueError("no token of ours")
    return container, token


async def _answer(writer: asyncio.StreamWriter, status: int, text: str) -> None:
    # "close": Go's transport may silently re-send a GET on a dropped re-used connection.
    body = text.encode() + b"\n"
    head = f"HTTP/1.1 {status} {'OK' if status == 200 else 'No'}\r\nContent-Type: text/plain\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
    await writer.drain()


def parse_proxy_line(line: bytes) -> tuple[str, int]:
    """Destination of ``PROXY TCP4 <src> <dst> <sport> <dport>`` (haproxy proxy-protocol.txt, v1)."""
    words = line.decode("latin-1").split()
    if len(words) != 6 or words[0] != "PROXY" or words[1] not in ("TCP4", "TCP6"):
        raise ValueError("not a PROXY v1 line")
    family = socket.AF_INET if words[1] == "TCP4" else socket.AF_INET6
    return socket.inet_ntop(family, socket.inet_pton(family, words[3])), int(words[5])


def original_destination(connection: Any) -> tuple[str, int]:
    """Where a redirected connection was going, from the kernel's conntrack (pod IP, gate port)."""
    if connection.family == socket.AF_INET6:
        raw = connection.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, 28)
        return socket.inet_ntop(socket.AF_INET6, raw[8:24]), int(struct.unpack_from("!H", raw, 2)[0])
    raw = connection.getsockopt(socket.IPPROTO_IP, SO_ORIGINAL_DST, 16)
    return socket.inet_ntop(socket.AF_INET, raw[4:8]), int(struct.unpack_from("!H", raw, 2)[0])


async def main(program: Program) -> int:
    """Hold until SIGTERM, then until the last hold is over (the kubelet's own grace bounds that)."""
    settings = HolderSettings.from_env(program.env)
    holder = Holder(settings, program.log)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    hosts = settings.host.split(",")
    where = hosts if len(hosts) > 1 else settings.host
    server = await asyncio.start_server(holder.serve, where, settings.port, limit=LINE_BYTES_MAX)
    program.log(f"holding gates on {settings.host}:{settings.port}")
    await stop.wait()
    await holder.idle.wait()
    server.close()
    return 0
