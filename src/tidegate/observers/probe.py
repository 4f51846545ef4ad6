"""What the command line asks of a node agent's prober, and what it is told: where did these connections go?

``POST /v1/probe`` opens one batch of connections through an address that the node's own tables have, and holds them;
``POST /v1/probe/close`` lets them go. In between the pod's sockets can be read on its own node.
"""

from __future__ import annotations

from typing import Literal, Protocol, TypeVar

import msgspec

from tidegate.kube.errors import Unreachable
from tidegate.kube.exchange import Request

PROTOCOL = 1
PROBE_PATH = "/v1/probe"
CLOSE_PATH = "/v1/probe/close"
BATCH_MAX = 250
"""Connections of one batch."""
HOLD_SECONDS_MAX = 10.0
PATH_CHARACTERS_MAX = 1024

Via = Literal["cluster-ip", "node-port"]


class Probe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Open ``count`` connections to ``address:port`` (``address`` empty for a NodePort: the node's own).

    With ``path`` a GET is sent on each. They are held for ``hold_seconds`` at most, or until they are let go.
    """

    via: Via
    port: int
    address: str = ""
    count: int = 1
    path: str = ""
    hold_seconds: float = HOLD_SECONDS_MAX
    protocol: int = PROTOCOL


class Connection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One connection: where it comes from ("ip:port"), and where the node's kernel sent it, "" where that is not
    shown. ``status`` is the HTTP status, 0 without one."""

    source: str
    endpoint: str = ""
    status: int = 0


class Opened(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The answer: ``refused`` were reset or refused, ``silent`` neither answered nor refused in time.

    ``problem`` says why none was opened at all (the address is not in the node's tables).
    """

    node: str
    batch: str = ""
    connections: tuple[Connection, ...] = ()
    refused: int = 0
    silent: int = 0
    problem: str = ""
    protocol: int = PROTOCOL


class Close(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Let a batch go."""

    batch: str


class Calling(Protocol):
    """A way to a node's agent (``observers.proxied.ProxiedAgents``)."""

    async def call(self, node: str, request: Request) -> bytes: ...


Noun = TypeVar("Noun", Probe, Close)


def decode(body: bytes, shape: type[Noun]) -> Noun:
    """Raises ``ValueError`` for anything but a bounded question of this protocol."""
    asked = msgspec.json.decode(body, type=shape)
    if isinstance(asked, Probe):
        if asked.protocol != PROTOCOL:
            raise ValueError(f"protocol {asked.protocol} is not spoken here, only {PROTOCOL}")
        if not 0 < asked.count <= BATCH_MAX or not 0 < asked.port < 65_536:
            raise ValueError(f"1 to {BATCH_MAX} connections to one port")
        if not 0 < asked.hold_seconds <= HOLD_SECONDS_MAX:
            raise ValueError(f"held for at most {HOLD_SECONDS_MAX:g} s")
        is_path = not asked.path or (asked.path.startswith("/") and asked.path.isascii() and asked.path.isprintable())
        if not is_path or " " in asked.path or len(asked.path) > PATH_CHARACTERS_MAX:
            raise ValueError("a path begins with a slash and has no spaces")
    return asked


async def open_batch(agents: Calling, node: str, probe: Probe) -> Opened:
    """Put ``probe`` to the agent of ``node``. Raises ``KubeError``."""
    body = await agents.call(node, _posted(PROBE_PATH, probe))
    try:
        answer = msgspec.json.decode(body, type=Opened)
        if answer.protocol != PROTOCOL or answer.node != node:
            raise ValueError(f"this is protocol {answer.protocol} from {answer.node!r}")
    except (msgspec.DecodeError, ValueError) as error:
        raise Unreachable(f"the answer of {node} is not understood: {error}") from error
    return answer


async def close_batch(agents: Calling, node: str, batch: str) -> None:
    """Let a batch go. Raises ``KubeError``; the agent lets it go by itself in the end."""
    await agents.call(node, _posted(CLOSE_PATH, Close(batch)))


def _posted(path: str, noun: Probe | Close) -> Request:
    return Request("POST", path, (), {"content-type": "application/json"}, msgspec.json.encode(noun))
