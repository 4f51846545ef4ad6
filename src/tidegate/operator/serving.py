"""/healthz, /readyz and /metrics: who asks gets words for people, and a status code for kubelets."""

from __future__ import annotations

from collections.abc import Callable

from tidegate.kube.exchange import Exchange, Request, Response, whole
from tidegate.operator.metrics import CONTENT_TYPE

TEXT = "text/plain; charset=utf-8"
Problem = Callable[[], str]
"""What is wrong, "" for nothing."""


def exchange(is_unwell: Problem, is_unready: Problem, scraped: Callable[[], bytes]) -> Exchange:
    """The answers. ``scraped`` makes the metrics' text."""

    async def answer(request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            return whole(405, b"only GET\n", TEXT)
        match request.path:
            case "/healthz" | "/livez":
                return _said(is_unwell())
            case "/readyz":
                return _said(is_unready())
            case "/metrics":
                # Prometheus would keep the connection between scrapes, and our own gate waits for it to end.
                return whole(200, scraped(), CONTENT_TYPE, connection="close")
            case _:
                return whole(404, b"there are /healthz, /readyz and /metrics\n", TEXT)

    return answer


def _said(problem: str) -> Response:
    return whole(503 if problem else 200, f"{problem or 'ok'}\n".encode(), TEXT)
