"""The way to the API in a story: bad weather for everybody, and processes that are killed in the middle."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tidegate.kube.errors import ApiError, Unreachable
from tidegate.kube.exchange import Exchange, Request, Response

Kind = Literal["conflict", "busy", "error", "slow", "unreachable", "answer-lost"]
KINDS: tuple[Kind, ...] = ("conflict", "busy", "error", "slow", "unreachable", "answer-lost")
_STATUS = {"conflict": (409, "Conflict"), "busy": (429, "TooManyRequests"), "error": (500, "InternalError")}
_WRITING = ("PATCH", "POST", "PUT", "DELETE")


@dataclass(slots=True)
class Sky:
    """What the weather is: every request meets it with ``chance`` until ``until`` (the loop's clock)."""

    rng: random.Random
    kind: Kind = "slow"
    chance: float = 0.0
    until: float = 0.0
    count: int = 0

    def over(self, exchange: Exchange) -> Exchange:
        """The API as it is reached under this sky."""

        async def asked(request: Request) -> Response:
            return await self._asked(exchange, request)

        return asked

    async def _asked(self, exchange: Exchange, request: Request) -> Response:
        is_write = request.method in _WRITING
        if asyncio.get_running_loop().time() >= self.until or request.param("watch") or self.rng.random() > self.chance:
            return await exchange(request)
        if not is_write and self.kind in ("conflict", "answer-lost"):
            return await exchange(request)
        self.count += 1
        match self.kind:
            case "slow":
                await asyncio.sleep(self.rng.uniform(0.2, 4.0))
                return await exchange(request)
            case "unreachable":
                raise Unreachable("the weather: no answer")
            case "answer-lost":
                await (await exchange(request)).close()
                raise Unreachable("the weather: it was done, and nobody was told")
            case kind:
                code, reason = _STATUS[kind]
                raise ApiError(code, reason, f"{reason} by the weather")


class Mortal:
    """The way to the API of a process that is killed at its ``last`` request, before or after it is carried out.

    What is left of it in memory goes on for a while, and reaches nobody.
    """

    def __init__(self, exchange: Exchange, last: int, is_done_first: bool, died: Callable[[], None]) -> None:
        self._exchange = exchange
        self._left = last
        self._is_done_first = is_done_first
        self._died = died

    async def __call__(self, request: Request) -> Response:
        self._left -= 1
        if self._left <= 0:
            if self._left == 0:
                if self._is_done_first:
                    await self._exchange(request)
                self._died()
            raise Unreachable("this process is dead")
        return await self._exchange(request)
