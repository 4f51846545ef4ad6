"""What the load is asked to send. One frozen settings object, carried to its process as JSON."""

from __future__ import annotations

import msgspec


class Source(msgspec.Struct, frozen=True, array_like=True):
    """A node the client stands on: its name, and the address its sockets are bound to.

    ``namespace`` is a path that opens the node's network namespace, where it has one (``Network.path``).
    """

    node: str
    address: str
    namespace: str = ""


class LoadSpec(msgspec.Struct, frozen=True, kw_only=True):
    """An open-loop load: requests leave at scheduled instants, whatever became of the ones before.

    Rates are requests per second over all sources together; request k of a lane leaves from source k mod n.
    """

    host: str
    port: int
    sources: tuple[Source, ...]
    output: str
    """Path of the file the samples are appended to, one JSON line each."""
    new_per_second: float = 400.0
    """Requests that each open a connection of their own. 0 = none."""
    pool_per_second: float = 400.0
    """Requests on kept connections. 0 = none."""
    pool_size: int = 4
    """Connections kept per source (so that every pod holds some); a busy pool opens more."""
    retire_seconds: float = 1.0
    """Age at which a kept connection is retired: it finishes its request, then closes."""
    deadline_seconds: float = 5.0
    """A request without a complete 2xx this long after its *scheduled* instant is dropped."""
    requests_max: int = 0
    """Stop after this many requests. 0 = until told."""
    seconds_max: float = 0.0
    """Stop after this long. 0 = until told."""
    path: str = "/"


def encode_spec(spec: LoadSpec) -> str:
    """The spec as one command-line argument."""
    return msgspec.json.encode(spec).decode()


def decode_spec(text: str) -> LoadSpec:
    """The spec back from its argument. Raises ``msgspec.DecodeError`` or ``msgspec.ValidationError``."""
    return msgspec.json.decode(text, type=LoadSpec)
