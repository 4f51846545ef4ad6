"""``tidegate operator``: the process. Two of them stand side by side; one leads.

Environment: TIDEGATE_POD (who we are; the Lease names it), TIDEGATE_SERVER (URL; empty: kubeconfig),
TIDEGATE_NODE_ADDRESS or TIDEGATE_HOST (where /healthz, /readyz and /metrics listen; every address without it),
TIDEGATE_HEALTH_PORT, TIDEGATE_METRICS_PORT, TIDEGATE_NAMESPACE (of the Lease), TIDEGATE_WORKERS, TIDEGATE_SEED;
TIDEGATE_TLS_DIR (a folder of memory for the webhook's certificate: without it no webhook is served),
TIDEGATE_WEBHOOK_PORT.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tidegate import vtime
from tidegate.agent.operator_objects import HEALTH_PORT, METRICS_PORT
from tidegate.kube import wire
from tidegate.kube.client import KubeClient
from tidegate.kube.connect import open_api
from tidegate.model.names import SYSTEM_NAMESPACE
from tidegate.operator import leadership, serving
from tidegate.operator.leadership import Leadership
from tidegate.operator.logs import Log
from tidegate.operator.operator import WORKERS, Operator, Settings
from tidegate.operator.records import Records
from tidegate.operator.webhook_settings import WebhookSettings
from tidegate.vtime import Nursery, Program

if TYPE_CHECKING:
    from tidegate.operator.webhook import Webhook

STALL_SECONDS = 300.0
"""One look takes milliseconds, and a few times ten seconds where the API hangs (kube/client.py, CALL_SECONDS)."""


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """From the environment. Raises ``KeyError`` for what has no default, ``ValueError`` for a number that is none."""

    identity: str
    server: str = ""
    host: str = ""
    health_port: int = HEALTH_PORT
    metrics_port: int = METRICS_PORT
    namespace: str = SYSTEM_NAMESPACE
    workers: int = WORKERS
    seed: str = "0"
    tls_folder: str = ""
    webhook: WebhookSettings | None = None

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> ProcessSettings:
        return cls(
            identity=env["TIDEGATE_POD"],
            server=env.get("TIDEGATE_SERVER", ""),
            host=env.get("TIDEGATE_HOST", ""),
            health_port=int(env.get("TIDEGATE_HEALTH_PORT", HEALTH_PORT)),
            metrics_port=int(env.get("TIDEGATE_METRICS_PORT", METRICS_PORT)),
            namespace=env.get("TIDEGATE_NAMESPACE", SYSTEM_NAMESPACE),
            workers=int(env.get("TIDEGATE_WORKERS", WORKERS)),
            seed=env.get("TIDEGATE_SEED", "0"),
            tls_folder=env.get("TIDEGATE_TLS_DIR", ""),
            webhook=WebhookSettings.from_env(env),
        )


async def main(program: Program) -> int:
    """Keep Releases until SIGTERM; then give back what we hold, so that the next leader begins at once."""
    settings = ProcessSettings.from_env(program.env)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    # Modelled processes share one os.environ, where a real one's KUBECONFIG is found.
    own = program.env.get("KUBECONFIG", "") if vtime.is_virtual() else ""
    async with open_api(settings.server, kubeconfig=own) as api:
        await serve(api, settings, Log(program.log), stop)
    return 0


async def serve(api: KubeClient, settings: ProcessSettings, log: Log, stop: asyncio.Event) -> None:
    """Until ``stop`` is set. Raises ``OSError`` where a port is taken."""
    lease = Leadership(api, settings.identity, lease=leadership.settings(settings.namespace))
    records = Records(KubeClient(lease.fenced(api.exchange), api.server), lambda: lease.is_leading)
    operator = Operator(api, lease, Settings(settings.identity, settings.seed, settings.workers), log, records)
    records.saw = operator.metrics.saw
    hook = _webhook(api, settings.webhook, operator, log)
    async with contextlib.AsyncExitStack() as stack:
        answers = serving.exchange(lambda: "", lambda: _unready(operator, hook), lambda: _scraped(operator, records))
        for port in sorted({settings.health_port, settings.metrics_port}):
            await stack.enter_async_context(wire.serving(answers, settings.host or "0.0.0.0", port))
        log("started", identity=settings.identity)
        async with Nursery() as nursery:
            nursery.start(operator.run(), name="operator")
            nursery.start(records.run(), name="records")
            if hook is not None:
                nursery.start(hook.run(), name="webhook")
            await stop.wait()
            if hook is not None:
                await hook.leave()
            await operator.settled()
            nursery.cancel()
        await lease.resign()
        log("stopped", identity=settings.identity)


def _webhook(api: KubeClient, settings: WebhookSettings | None, operator: Operator, log: Log) -> Webhook | None:
    if settings is None:
        return None
    from tidegate.operator.webhook import Webhook  # late: it needs `cryptography`, and a lab's operator has no webhook

    hook = Webhook(api, settings, lambda line: log(line))
    hook.saw = lambda outcome: operator.metrics.reviews.labels(outcome).inc()
    return hook


def _unready(operator: Operator, hook: Webhook | None) -> str:
    if hook is not None and not hook.is_ready:
        return "the webhook has no certificate yet"
    if operator.is_ready:
        return ""
    error = operator.releases.error
    return f"Releases are not listed yet: {error or 'no answer so far'}"


def _scraped(operator: Operator, records: Records) -> bytes:
    operator.gauge()
    operator.count()
    operator.metrics.records_dropped.set(records.dropped)
    return operator.metrics.text()
