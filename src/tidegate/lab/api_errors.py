"""An API server in trouble: a share of what comes in over HTTP is answered with an error, for a while.

What is answered is what kube-apiserver 1.36 sends. 429 is priority and fairness', in plain text, with a Retry-After
(server/filters/priority-and-fairness.go); 409 is a PUT's or PATCH's stale version; 500 is etcd without a leader, which
has no reason and no Retry-After (its error is no Status of its own, endpoints/handlers/responsewriters/status.go); 503
is a server that shuts down (server/filters/waitgroup.go). A write that etcd timed out on may stand all the same: every
other 500 to a write is sent once it is carried out.

Not hit: what runs long (exec, attach, logs, port-forward, proxy) and probes, which priority and fairness lets pass too;
watches that are open; and the lab's own parts, which do not come by HTTP.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from tidegate.kube.errors import ApiError
from tidegate.kube.exchange import Exchange, Request, Response, whole
from tidegate.lab.apiserver import failures, routes
from tidegate.lab.apiserver.registry import Registry
from tidegate.lab.apiserver.server import failed
from tidegate.lab.faults import Faults

_LONG = ("attach", "exec", "proxy", "log", "portforward")
_PROBES = ("/healthz", "/livez", "/readyz")
_READS = ("GET", "HEAD", "OPTIONS")
_RETRY_SECONDS = "1"

Answer = Callable[[Request], Response]


def with_errors(exchange: Exchange, faults: Faults, registry: Registry, rng: random.Random) -> Exchange:
    """``exchange`` as it answers while ``faults`` say that its server is in trouble. ``rng``: whom it hits, and how."""

    def conflict(request: Request) -> Response:
        route = routes.parse(registry, request.path)
        return failed(failures.conflict(route.row, route.name, subresource=route.subresource))

    async def answer(request: Request) -> Response:
        share = faults.api_share()
        if not share or _passes(request) or rng.random() >= share:
            return await exchange(request)
        is_write = request.method not in _READS
        kinds: list[Answer] = [_too_many, _leaderless, _leaving]
        if request.method in ("PUT", "PATCH"):
            kinds.append(conflict)
        kind = rng.choice(kinds)
        if kind is _leaderless and is_write and rng.random() < 0.5:
            response = await exchange(request)
            await response.close()
            return _timed_out(request)
        try:
            return kind(request)
        except ApiError as error:  # a path that is nothing's
            return failed(error)

    return answer


def _passes(request: Request) -> bool:
    parts = request.path.strip("/").split("/")
    if request.path.startswith(_PROBES):
        return True
    return any(part in _LONG for part in parts[4:]) and parts[0] in ("api", "apis")


def _too_many(request: Request) -> Response:
    del request
    text = b"Too many requests, please try again later.\n"
    return whole(429, text, "text/plain; charset=utf-8", retry_after=_RETRY_SECONDS, x_content_type_options="nosniff")


def _leaderless(request: Request) -> Response:
    del request
    return failed(failures.failure(500, "", "etcdserver: leader changed"))


def _timed_out(request: Request) -> Response:
    del request
    return failed(failures.failure(500, "", "etcdserver: request timed out"))


def _leaving(request: Request) -> Response:
    del request
    response = failed(failures.unavailable("apiserver is shutting down"))
    response.headers = {**response.headers, "retry-after": _RETRY_SECONDS}
    return response
