"""The one seam all HTTP goes through: ``exchange(request) -> response``.

Everything above it runs unchanged over aiohttp (``kube/http.py``), over our own HTTP/1.1 on any event
loop (``kube/wire.py``) and straight into a server in the same process (virtual time).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlencode


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request, as its connection tells. ``name``: of the certificate it showed. ``vouch``: say that it may
    ask, so that no stranger takes its place; False where it was turned away meanwhile."""

    source: str = ""
    name: str = ""
    vouch: Callable[[], bool] = _always


NOBODY = Caller()


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request. ``path`` is percent-decoded; header names are lower case; ``query`` keeps order."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = b""
    caller: Caller = field(default=NOBODY, compare=False, repr=False)

    @property
    def target(self) -> str:
        """Path and query as sent on the request line."""
        path = quote(self.path, safe="/:@!$&'()*+,;=~")
        return f"{path}?{urlencode(self.query)}" if self.query else path

    def param(self, name: str, default: str = "") -> str:
        """The first value of a query parameter."""
        return next((value for key, value in self.query if key == name), default)

    def params(self, name: str) -> list[str]:
        """All values of a repeated query parameter, in order (``command=`` of exec)."""
        return [value for key, value in self.query if key == name]


Upgrade = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(slots=True)
class Response:
    """One HTTP response. ``chunks`` ends when the body does; closing it early ends the exchange."""

    status: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]
    body: bytes | None = None
    """The whole body where it was known from the start (``chunks`` then yields it); ``None`` for a stream."""
    upgrade: Upgrade | None = None
    """With status 101: takes the connection over once the header is sent."""

    async def read(self) -> bytes:
        """The whole body."""
        if self.body is not None:
            return self.body
        return b"".join([chunk async for chunk in self.chunks])

    async def close(self) -> None:
        """Give the exchange up without reading on."""
        closing = getattr(self.chunks, "aclose", None)
        if closing is not None:
            await closing()


Exchange = Callable[[Request], Awaitable[Response]]


async def _once(body: bytes) -> AsyncIterator[bytes]:
    if body:
        yield body


def whole(status: int, body: bytes, content_type: str = "application/json", **headers: str) -> Response:
    """A response whose body is known already. Extra headers: ``retry_after="1"`` -> ``retry-after: 1``."""
    extra = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, {"content-type": content_type, **extra}, _once(body), body)


def parse_target(target: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Split a request line's target into decoded path and decoded query pairs."""
    path, _, query = target.partition("?")
    return unquote(path), tuple(parse_qsl(query, keep_blank_values=True))
