"""Two operators side by side, as their Deployment has them: here as processes beside the lab, to be killed, stood still
and asked to stop. Both serve the webhook, as its pods do.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from bench.ground import ROOT, BenchLab, bound
from bench.releases_ground import Play
from tidegate.model.names import SYSTEM_NAMESPACE, WEBHOOK, WEBHOOK_SERVICE
from tidegate.rehearse.real import RealStage

LEASE = "tidegate-operator"
PORTS = (18491, 18492)
WEBHOOK_ABOVE = 10
"""A replica's webhook listens on its port for health and metrics, and so many more."""
LEAD_SECONDS = 60.0
LEAVE_SECONDS = 15.0
_POLL_SECONDS = 0.2


class Operators(Play):
    """Processes by the name under which they lead."""

    def __init__(self, ground: BenchLab, stage: RealStage) -> None:
        super().__init__(ground, stage, SYSTEM_NAMESPACE)
        self._made = 0
        self._running: dict[str, tuple[asyncio.subprocess.Process, int]] = {}

    async def start_one(self, port: int) -> None:
        self._made += 1
        name = f"operator-{self._made}"
        folder = self._folder(name)
        folder.mkdir(exist_ok=True)
        env = {
            "TIDEGATE_SERVER": self.lab.record.server, "TIDEGATE_POD": name, "TIDEGATE_HOST": "127.0.0.1",
            "TIDEGATE_HEALTH_PORT": str(port), "TIDEGATE_METRICS_PORT": str(port),
            "TIDEGATE_TLS_DIR": str(folder), "TIDEGATE_WEBHOOK_PORT": str(port + WEBHOOK_ABOVE),
        }  # fmt: skip
        with (folder / "log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tidegate", "operator",
                cwd=ROOT, env={**os.environ, **env}, stderr=log, preexec_fn=bound(),
            )  # fmt: skip
        self._running[name] = (process, port)

    def _folder(self, name: str) -> Path:
        return Path(self.stage.scratch) / name

    def said(self, name: str) -> Iterator[dict[str, Any]]:
        """What one of them logged so far."""
        for line in (self._folder(name) / "log").read_text().splitlines():
            with contextlib.suppress(ValueError):
                yield json.loads(line)

    async def leader(self, other_than: str = "") -> str:
        """Who holds the Lease, once somebody else than that one does. Raises ``TimeoutError``."""
        async with asyncio.timeout(LEAD_SECONDS):
            while True:
                found = await self.kubectl("get", "lease", LEASE, "--ignore-not-found", "-o", "json")
                holder = str(json.loads(found)["spec"].get("holderIdentity") or "") if found else ""
                if holder and holder != other_than:
                    return holder
                await asyncio.sleep(_POLL_SECONDS)

    async def kill(self, name: str) -> None:
        """SIGKILL; another one takes its place, as a Deployment's would, and waits for the Lease."""
        await self._replaced(name, signal.SIGKILL)

    async def ask_to_stop(self, name: str) -> None:
        """SIGTERM, and its end; another one takes its place."""
        await self._replaced(name, signal.SIGTERM)

    def freeze(self, name: str) -> None:
        self._running[name][0].send_signal(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        self._running[name][0].send_signal(signal.SIGCONT)

    async def _replaced(self, name: str, number: signal.Signals) -> None:
        process, port = self._running.pop(name)
        process.send_signal(number)
        await asyncio.wait_for(process.wait(), LEAVE_SECONDS)
        await self.start_one(port)

    async def end(self) -> None:
        """All of them, one that stands still too."""
        for process, _ in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process, _ in self._running.values():
            try:
                await asyncio.wait_for(process.wait(), LEAVE_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()


@contextlib.asynccontextmanager
async def operators(ground: BenchLab, stage: RealStage) -> AsyncIterator[Operators]:
    """The kinds of ``tidegate install``, and two operators. Raises ``RuntimeError``."""
    made = Operators(ground, stage)
    await made.kubectl("apply", "-f", "-", stdin=await printed(made, "crds"))
    try:
        for port in PORTS:
            await made.start_one(port)
        await made.leader()
        yield made
    finally:
        await made.end()


async def printed(play: Play, part: str) -> str:
    """A part of ``tidegate install``. Raises ``RuntimeError``."""
    done = await play.tidegate("install", "--print", "--only", part, "--image", "none")
    if done.code:
        raise RuntimeError(f"install --print --only {part}: {done.err.strip()}")
    return done.out


# --- the webhook ---


async def call_webhook(both: Operators) -> None:
    """API servers call it: its configuration, and where it is (a lab has no pods of it). Until they trust it."""
    await both.kubectl("apply", "-f", "-", stdin=await printed(both, "webhook"))
    service = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": WEBHOOK_SERVICE},
        "spec": {"ports": [{"name": "webhook", "port": 443}]},
    }  # fmt: skip
    await both.kubectl("delete", "service", WEBHOOK_SERVICE)  # the printed one selects pods
    await both.apply(service)
    await lead_webhook_to(both, PORTS[0] + WEBHOOK_ABOVE)
    async with asyncio.timeout(LEAD_SECONDS):
        while not all(one["clientConfig"].get("caBundle") for one in (await _configuration(both))["webhooks"]):
            await asyncio.sleep(_POLL_SECONDS)
    await asyncio.sleep(2.0)  # a certificate that was made just now is taken up


async def _configuration(both: Operators) -> dict[str, Any]:
    return await both.get("mutatingwebhookconfigurations", WEBHOOK)


async def lead_webhook_to(both: Operators, port: int) -> None:
    """Where the webhook's Service leads; where nobody listens it is down."""
    slice_ = {
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": WEBHOOK_SERVICE, "labels": {"kubernetes.io/service-name": WEBHOOK_SERVICE}},
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
        "ports": [{"name": "webhook", "port": port, "protocol": "TCP"}],
    }  # fmt: skip
    await both.apply(slice_)


async def forget_webhook(both: Operators) -> None:
    await both.kubectl("delete", "mutatingwebhookconfiguration", WEBHOOK, "--ignore-not-found")
