"""The webhook's server: reviews in under TLS, answers out at once. What an answer says is ``injection.py``'s.

It reads nothing and writes nothing: a review brings all that is needed, and which namespaces ask for what is said by
the path that the configuration calls. So it can be asked twice, in a dry run, and by anybody: who asks learns what they
sent. Each answer ends its connection: an API server's next call then goes where its Service leads by then, and no
connection of it holds our own gate (it would keep one for 90 s).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from tidegate import vtime
from tidegate.agent.operator_objects import GATE_AND_SLEEP_PATH, GATE_ONLY_PATH
from tidegate.kube import wire
from tidegate.kube.api import Api
from tidegate.kube.crowd import Limits
from tidegate.kube.errors import NoCertificate
from tidegate.kube.exchange import Request, Response, whole
from tidegate.kube.tls import Credentials
from tidegate.operator.injection import REVIEW_BYTES_MAX, answer
from tidegate.operator.webhook_certificates import WebhookCertificates
from tidegate.operator.webhook_settings import WebhookSettings
from tidegate.vtime import Nursery

LIMITS = Limits(
    strangers_max=512, known_max=512, request_seconds=2.0, answer_seconds=5.0,
    body_bytes_max=2 * REVIEW_BYTES_MAX, buffered_bytes_max=16 * REVIEW_BYTES_MAX,
)  # fmt: skip
"""An API server has 200 writes in flight (--max-mutating-requests-inflight), and there may be several of them."""
WAIT_SECONDS = 0.5
REFRESH_SECONDS = 5.0
LEAVE_SECONDS = 3.0


class Webhook:
    """Every replica serves. ``outcomes`` counts answers (``injection.Answer.outcome``), and ``saw`` is told of each."""

    def __init__(self, api: Api, settings: WebhookSettings, log: Callable[[str], None]) -> None:
        self.settings = settings
        self.outcomes: Counter[str] = Counter()
        self.saw: Callable[[str], None] = lambda outcome: None
        self.port = 0
        self._log = log
        self._certificates = WebhookCertificates(api, settings.folder, log, settings.name)
        self._credentials = Credentials(settings.folder)
        self._server: wire.Server | None = None

    @property
    def is_ready(self) -> bool:
        """Whether it listens, with a certificate that API servers are told to trust."""
        return self._server is not None

    async def run(self) -> None:
        """Keep the certificate and serve, for ever. Raises ``OSError`` when the port is taken."""
        async with Nursery() as nursery:
            if not vtime.is_virtual():  # there is no TLS in virtual time
                nursery.start(self._certificates.keep(), name="webhook certificates")
            nursery.start(self._serve(), name="webhook")

    async def leave(self) -> None:
        """Nobody new; what was asked is answered."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.stop_listening()
        until = asyncio.get_running_loop().time() + LEAVE_SECONDS
        while server.connections and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0.05)
        await server.close()

    async def exchange(self, request: Request) -> Response:
        """One request. A review is never answered with an error."""
        if not request.caller.vouch():
            return _closing(503, b"too many ask at once", "text/plain")
        if request.path in ("/healthz", "/readyz"):
            return _closing(200, b"ok", "text/plain")
        if request.path not in (GATE_ONLY_PATH, GATE_AND_SLEEP_PATH):
            return _closing(404, b"no such path", "text/plain")
        if request.method != "POST":
            return _closing(405, b"a review is sent by POST", "text/plain")
        found = answer(request.body, replaces_sleep=request.path == GATE_AND_SLEEP_PATH)
        self.outcomes[found.outcome] += 1
        self.saw(found.outcome)
        return _closing(200, found.body, "application/json")

    async def _serve(self) -> None:
        try:
            await self._open()
            await self._follow()
        finally:
            if self._server is not None:
                await self._server.close()
                self._server = None

    async def _open(self) -> None:
        while True:
            try:
                context = None if vtime.is_virtual() else self._credentials.server(is_mutual=False)
            except NoCertificate:
                await asyncio.sleep(WAIT_SECONDS)
                continue
            terms = wire.Terms(limits=LIMITS, tls=context, log=lambda line: self._log(f"webhook: {line}"))
            self._server = await wire.serve(self.exchange, self.settings.host, self.settings.port, terms)
            self.port = self._server.port
            self._log(f"webhook: listening on port {self.port}")
            return

    async def _follow(self) -> None:
        """Take up a renewed certificate, for ever. Calls that have begun end as they began."""
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            if vtime.is_virtual():
                continue
            try:
                if self._credentials.refresh():
                    self._log("webhook: the certificate was renewed")
            except NoCertificate as error:
                self._log(f"webhook: the certificate of before stays in use: {error}")


def _closing(status: int, body: bytes, kind: str) -> Response:
    return whole(status, body, kind, connection="close")
