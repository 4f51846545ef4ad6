"""Asking once more where the server says that it cannot just now, as client-go does beneath kubectl.

For whoever asks a few things in a row and has no loop of its own to come back with: a command line. Asked again is
what cannot be done twice. A read, and a review or a token, after 429 and after what a server in trouble answers (500
while etcd elects, 502 to 504). A write after 429, which is said before anything is done; after the others, of which
nobody knows whether the write stands, only where it names the object as it was read: if it does stand, the second is
refused (409, 422, 404), and whoever asked looks again and decides anew. A create is its caller's: that the name is
taken does not say by whom.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import msgspec

from tidegate.kube.client import CALL_SECONDS
from tidegate.kube.errors import TROUBLE, Unreachable
from tidegate.kube.exchange import Exchange, Request, Response

PATIENCE_SECONDS = 8.0
"""In all, for one request, unless told otherwise."""
_PAUSE_SECONDS_MIN = 0.25
_TOLD_SECONDS = 1.0
"""Shorter pauses are nobody's matter."""
_BUSY, _CONFLICT = 429, 409
_LONG = ("attach", "exec", "proxy", "log", "portforward")
_STATELESS = ("token", "selfsubjectaccessreviews", "selfsubjectrulesreviews", "selfsubjectreviews")
_APPLY = "application/apply-patch+yaml"
"""Applied twice by one field manager is applied once."""
_UNTIL: ContextVar[float] = ContextVar("patient until", default=float("inf"))


@dataclass(frozen=True, slots=True)
class Patience:
    """For ``seconds`` of trouble without a good answer between, and never longer for one request. ``told`` hears a
    line whenever it waits for a second or more. Pauses grow up to ``pause_seconds_max``: who has little time has to ask
    often, where every other answer is bad (of five tries within 8 s all are, once in 32)."""

    seconds: float = PATIENCE_SECONDS
    told: Callable[[str], None] = lambda line: None
    pause_seconds_max: float = 4.0


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Inside, and in tasks begun inside, nobody is patient for longer than this: a deadline is not slept through."""
    until = asyncio.get_running_loop().time() + seconds
    token = _UNTIL.set(min(until, _UNTIL.get()))
    try:
        yield
    finally:
        _UNTIL.reset(token)


class Patient:
    """``exchange``, asked again for as long as there is hope. What runs long is asked once: a 503 through a ``proxy``
    is the pod's own answer."""

    def __init__(self, exchange: Exchange, patience: Patience = Patience()) -> None:
        self._exchange = exchange
        self._patience = patience
        self._since: float | None = None
        """Of the trouble: the first bad answer after the last good one."""
        self._quiet_until = float("-inf")
        self.messages = getattr(exchange, "messages", None)  # of a WebSocket: as the transport has it

    @property
    def patience_seconds(self) -> float:
        return self._patience.seconds

    async def __call__(self, request: Request) -> Response:
        if any(part in _LONG for part in request.path.split("/")[5:]):
            return await self._exchange(request)
        loop = asyncio.get_running_loop()
        began, pause = loop.time(), _PAUSE_SECONDS_MIN
        while True:
            response = await self._tried(request)
            if response.status != _BUSY and response.status not in TROUBLE:
                if response.status != _CONFLICT:  # one that is in trouble says that as well
                    self._since = None
                return response
            self._since = loop.time() if self._since is None else self._since
            asked = response.headers.get("retry-after", "")
            wait = float(asked) if asked.isdecimal() else pause
            until = min(min(began, self._since) + self._patience.seconds, _UNTIL.get())
            if not _may_pass(request, response) or loop.time() + wait >= until:
                return response
            await response.close()
            self._tell(request, response.status, wait)
            await asyncio.sleep(wait)
            pause = min(2 * pause, self._patience.pause_seconds_max)

    async def _tried(self, request: Request) -> Response:
        try:
            async with asyncio.timeout(CALL_SECONDS):
                return await self._exchange(request)
        except TimeoutError as error:
            raise Unreachable(f"no answer within {CALL_SECONDS:g} s to {request.method} {request.path}") from error

    def _tell(self, request: Request, status: int, wait: float) -> None:
        """One line for all that wait at once."""
        now = asyncio.get_running_loop().time()
        if wait < _TOLD_SECONDS or now < self._quiet_until:
            return
        self._quiet_until = now + wait
        what = f"{request.method} {request.path}"
        limit = f"for {self._patience.seconds:g} s at most"
        self._patience.told(f"the API answers {status} to {what}, again in {wait:g} s ({limit})")


def _may_pass(request: Request, response: Response) -> bool:
    """Whether the same request may be sent once more. An eviction that a budget refuses is a 429 without Retry-After,
    and is no matter of moments."""
    if response.status == _BUSY:
        return "retry-after" in response.headers
    if request.method == "GET":
        return True
    if request.method == "POST":
        return request.path.rpartition("/")[2] in _STATELESS
    return request.headers.get("content-type") == _APPLY or _is_tested(request)


def _is_tested(request: Request) -> bool:
    """Whether a write names the object that it is about as it was read: its resourceVersion, or its uid."""
    try:
        body: Any = msgspec.json.decode(request.body)
    except msgspec.DecodeError:
        return False
    if isinstance(body, list):
        return any(one.get("op") == "test" and one.get("path") == "/metadata/resourceVersion" for one in body)
    if not isinstance(body, dict):
        return False
    named = body.get("preconditions" if request.method == "DELETE" else "metadata") or {}
    return bool(named.get("resourceVersion") or named.get("uid"))
