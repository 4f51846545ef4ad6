"""Who the coordinator is: a ``coordination.k8s.io`` Lease, held by one process at a time.

Being the holder is an optimisation, not the safety argument: an epoch counts only for the writer whose write
the API server took (optimistic concurrency on the fence), so two coordinators that both believe they hold the
Lease cost time and never a false acknowledgement.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tidegate import vtime
from tidegate.kube.api import LEASES, Api, JsonObject
from tidegate.kube.errors import ApiError, KubeError
from tidegate.model.names import SYSTEM_NAMESPACE
from tidegate.observers.asking import ASK_ANNOTATION
from tidegate.observers.coordinator import ADDRESS_ANNOTATION, LEASE_NAME


@dataclass(frozen=True, slots=True)
class LeaseSettings:
    """Name and timing of the Lease. The proportions are client-go's, shorter: held gates wait meanwhile."""

    namespace: str = SYSTEM_NAMESPACE
    name: str = LEASE_NAME
    duration_seconds: int = 5
    renew_seconds: float = 1.5
    retry_seconds: float = 0.5


def micro_time(at: datetime) -> str:
    """A MicroTime as the API writes it."""
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Lease:
    """One candidate. ``is_held`` follows our own clock: never true past what we last renewed."""

    def __init__(
        self, api: Api, identity: str, address: str, settings: LeaseSettings | None = None, ask: str = ""
    ) -> None:
        self.settings = settings or LeaseSettings()
        self._api = api
        self._identity = identity
        self._annotations = {ADDRESS_ANNOTATION: address, **({ASK_ANNOTATION: ask} if ask else {})}
        self._seen: tuple[str, float] = ("", 0.0)
        self._held_until = 0.0
        self.changed: Callable[[bool], None] = lambda held: None

    @property
    def is_held(self) -> bool:
        return asyncio.get_running_loop().time() < self._held_until

    @property
    def held_until(self) -> float:
        """On the loop's clock; in the past where it is not held."""
        return self._held_until

    async def give_up(self) -> None:
        """Let the next candidate begin at once. ``run`` has to have ended. Never raises ``KubeError``."""
        if not self.is_held:
            return
        self._held_until = 0.0
        with contextlib.suppress(KubeError):
            lease = await self._api.get(LEASES, self.settings.name, self.settings.namespace)
            if (lease.get("spec") or {}).get("holderIdentity") == self._identity:
                # An empty holder and a second: what client-go's ReleaseOnCancel writes (leaderelection.go, release).
                spec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
                await self._api.replace(LEASES, {**lease, "spec": spec})

    async def run(self) -> None:
        """Acquire and renew for ever; ``changed`` is called when holding begins and when it is lost."""
        was_held = False
        while True:
            with contextlib.suppress(KubeError):  # not renewed: `is_held` runs out by itself
                await self._tick()
            if self.is_held != was_held:
                was_held = self.is_held
                self.changed(was_held)
            await asyncio.sleep(self.settings.renew_seconds if was_held else self.settings.retry_seconds)

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            lease = await self._api.get(LEASES, self.settings.name, self.settings.namespace)
        except ApiError as error:
            if not error.is_not_found:
                raise
            await self._api.create(LEASES, self._taken({}), self.settings.namespace)
        else:
            # Watched from when the answer came: one that was late by its whole duration says nothing of that time.
            if not self._may_take(lease, loop.time()):
                self._held_until = 0.0
                return
            await self._api.replace(LEASES, self._taken(lease))
        self._held_until = began + self.settings.duration_seconds

    def _may_take(self, lease: JsonObject, now: float) -> bool:
        """Ours, given up, or not renewed for its duration as *we* watched it (clocks of others prove nothing)."""
        spec: dict[str, Any] = lease.get("spec") or {}
        if spec.get("holderIdentity") in (None, "", self._identity):
            return True
        version = lease["metadata"]["resourceVersion"]
        if self._seen[0] != version:
            self._seen = (version, now)
        return now - self._seen[1] > float(spec.get("leaseDurationSeconds") or 0)

    def _taken(self, lease: JsonObject) -> JsonObject:
        spec: dict[str, Any] = dict(lease.get("spec") or {})
        now = micro_time(vtime.now())
        if spec.get("holderIdentity") != self._identity:
            spec["acquireTime"] = now
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + (1 if spec else 0)
        spec |= {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": self.settings.duration_seconds,
            "renewTime": now,
        }
        metadata = dict(lease.get("metadata") or {"name": self.settings.name})
        metadata.setdefault("namespace", self.settings.namespace)
        metadata["annotations"] = {**_others(metadata), **self._annotations}
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


def _others(metadata: dict[str, Any]) -> dict[str, str]:
    """Annotations that are not about how the holder is asked: the one before may have been asked another way."""
    found: dict[str, str] = metadata.get("annotations") or {}
    return {key: value for key, value in found.items() if key != ASK_ANNOTATION}
