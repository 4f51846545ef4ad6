"""Asking once more where the server says that it cannot just now, as client-go does beneath kubectl.

For whoever asks a few things in a row and has no loop of its own to come back with: a command line. A read is asked
again after 429 and after what a server in trouble answers (500 while etcd elects, 502 to 504); a write after 429 alone,
which is said before anything is done: of another answer nobody knows whether the write stands.
"""

from __future__ import annotations

import asyncio

from tidegate.kube.exchange import Exchange, Request, Response

PATIENCE_SECONDS = 8.0
"""In all, for one request: below the 10 s after which a call is given up, so that the answer itself is told."""
_PAUSE_SECONDS = 0.25
_BUSY = 429
_TROUBLE = (500, 502, 503, 504)
_LONG = ("attach", "exec", "proxy", "log", "portforward")


class Patient:
    """``exchange``, asked again for as long as there is hope. What runs long is asked once: a 503 through a ``proxy``
    is the pod's own answer."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.messages = getattr(exchange, "messages", None)  # of a WebSocket: as the transport has it

    async def __call__(self, request: Request) -> Response:
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE_SECONDS
        while True:
            response = await self._exchange(request)
            pause = _pause(response)
            if not _may_pass(request, response.status) or loop.time() + pause >= until:
                return response
            await response.close()
            await asyncio.sleep(pause)


def _may_pass(request: Request, status: int) -> bool:
    if any(part in _LONG for part in request.path.split("/")[5:]):
        return False
    return status == _BUSY or (request.method == "GET" and status in _TROUBLE)


def _pause(response: Response) -> float:
    """What the server asks for in whole seconds; a moment where it says nothing. An eviction that a budget refuses has
    no Retry-After, and is no matter of moments."""
    asked = response.headers.get("retry-after", "")
    if asked.isdecimal():
        return float(asked)
    return PATIENCE_SECONDS if response.status == _BUSY else _PAUSE_SECONDS
