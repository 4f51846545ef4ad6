"""Who may ask on the port for command lines: whose token the API server takes, and who is allowed ``questions``.

A token is judged once in ten seconds (TokenReview, then SubjectAccessReview), a refused one too, so that asking again
and again costs the API server nothing. What cannot be told is refused.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, replace

import msgspec

from tidegate.kube.api import Api, JsonObject
from tidegate.kube.errors import KubeError
from tidegate.kube.exchange import Exchange, Request, Response, whole
from tidegate.model.names import SYSTEM_NAMESPACE
from tidegate.observers.asking import (
    ACCESSREVIEWS,
    AUDIENCE,
    GROUP,
    RESOURCE,
    TOKEN_HEADER,
    TOKENREVIEWS,
)

KEPT_SECONDS = 10.0
KEPT_MAX = 256
REVIEWS_MAX = 8
"""At once. A flood of tokens nobody was given must not become one of the API server."""

Key = tuple[bytes, str]
"""(digest of the token, verb): the token itself is not kept."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """``status`` 0: allowed. Else what to answer, and why."""

    status: int
    why: str = ""


class Callers:
    """Judges tokens. ``guarded`` is an exchange that only those reach who may."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._kept: dict[Key, tuple[Judgement, float]] = {}
        self._asked: dict[Key, asyncio.Task[Judgement]] = {}

    def guarded(self, exchange: Exchange) -> Exchange:
        async def answer(request: Request) -> Response:
            if request.path == "/healthz":
                return await exchange(request)
            judged = await self._judge(request)
            if judged.status:
                return _refusal(judged)
            if not request.caller.vouch():
                return _refusal(Judgement(503, "too many ask at once"))
            headers = {name: value for name, value in request.headers.items() if name != TOKEN_HEADER}
            return await exchange(replace(request, headers=headers))

        return answer

    async def _judge(self, request: Request) -> Judgement:
        token = request.headers.get(TOKEN_HEADER, "")
        if not token:
            return Judgement(401, f"a token of audience {AUDIENCE} is wanted in the header {TOKEN_HEADER}")
        verb = "get" if request.method in ("GET", "HEAD") else "create"
        key = (hashlib.sha256(token.encode()).digest(), verb)
        loop = asyncio.get_running_loop()
        judged, until = self._kept.get(key, (Judgement(0), 0.0))
        if loop.time() < until:
            return judged
        asked = self._asked.get(key)
        if asked is None:
            if len(self._asked) >= REVIEWS_MAX:
                return Judgement(429, f"{REVIEWS_MAX} tokens are being judged already")
            asked = self._asked[key] = loop.create_task(self._review(token, verb))
            asked.add_done_callback(lambda done: self._keep(key, done))
        return await asyncio.shield(asked)

    def _keep(self, key: Key, done: asyncio.Task[Judgement]) -> None:
        self._asked.pop(key, None)
        if done.cancelled() or done.exception() is not None or done.result().status == 503:
            return
        self._kept.pop(key, None)
        while len(self._kept) >= KEPT_MAX:
            del self._kept[next(iter(self._kept))]
        self._kept[key] = (done.result(), asyncio.get_running_loop().time() + KEPT_SECONDS)

    async def _review(self, token: str, verb: str) -> Judgement:
        try:
            user = await self._holder(token)
            if user is None:
                return Judgement(401, f"the API server does not know this token for audience {AUDIENCE}")
            if not await self._is_allowed(user, verb):
                name = str(user.get("username") or "nobody")
                return Judgement(403, f"{name} may not {verb} {RESOURCE}.{GROUP} in {SYSTEM_NAMESPACE}")
        except (KubeError, TypeError, AttributeError) as error:
            return Judgement(503, f"it cannot be told who asks: {error}")
        return Judgement(0)

    async def _holder(self, token: str) -> JsonObject | None:
        spec = {"token": token, "audiences": [AUDIENCE]}
        review = {"apiVersion": TOKENREVIEWS.api_version, "kind": TOKENREVIEWS.kind, "spec": spec}
        status = (await self._api.create(TOKENREVIEWS, review)).get("status") or {}
        # A server that knows no audiences says nothing of them: then the token may be anybody's, for anything.
        is_ours = status.get("authenticated") is True and AUDIENCE in (status.get("audiences") or ())
        return dict(status.get("user") or {}) if is_ours else None

    async def _is_allowed(self, user: JsonObject, verb: str) -> bool:
        wanted = {"verb": verb, "group": GROUP, "resource": RESOURCE, "namespace": SYSTEM_NAMESPACE}
        spec = {
            "user": user.get("username") or "",
            "groups": user.get("groups") or [],
            "uid": user.get("uid") or "",
            "extra": user.get("extra") or {},
            "resourceAttributes": wanted,
        }
        review = {"apiVersion": ACCESSREVIEWS.api_version, "kind": ACCESSREVIEWS.kind, "spec": spec}
        status = (await self._api.create(ACCESSREVIEWS, review)).get("status") or {}
        return status.get("allowed") is True and status.get("denied") is not True


def _refusal(judged: Judgement) -> Response:
    return whole(judged.status, msgspec.json.encode({"error": judged.why}))
