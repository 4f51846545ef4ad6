"""Kind ``cilium``: what each node's Cilium agent says of its services, read by a command in the agent's own pod.

Its API is a UNIX socket on its node, so the way there is ``pods/exec``. In the agents' namespace that is as good as
root on every node. For what the answer is worth see ``dataplane.cilium``.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tidegate.dataplane import cilium
from tidegate.dataplane.facts import Facts, Unreadable
from tidegate.kube.api import PODS
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import Unreachable
from tidegate.model.endpointslice import EndpointSlice
from tidegate.observers.external import Fencing, Question, Replica, Spec, replicas_of
from tidegate.observers.options import decode_options

DUMP_BYTES_MAX = 32 * 1024 * 1024


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """``container``: the agent's in its pod. ``command``: what prints the list."""

    container: str = "cilium-agent"
    command: tuple[str, ...] = cilium.COMMAND
    covers: tuple[str, ...] = ("dataplane/cilium",)


class Cilium:
    """Observer of kind ``cilium``. ``bind`` gives it the API client that the coordinator has."""

    fencing = Fencing.SINGLE
    additions = "listed"
    listing_lags = "its BPF maps follow what it lists"
    poll_seconds = 2.0
    """A process in every agent's pod for each question."""

    def __init__(self, spec: Spec) -> None:
        self._where = spec.where
        self._options = decode_options(spec, Options)
        self.covers = self._options.covers
        if not self._options.command:
            raise ValueError(f"{spec.path}.command: what prints the services")
        if not spec.where.service:
            raise ValueError(f"{spec.path}: its agents are the pods of a Service, by default kube-system/hubble-peer")
        self._client: KubeClient | None = None

    def bind(self, client: KubeClient) -> None:
        self._client = client

    def replicas(self, slices: Iterable[EndpointSlice]) -> tuple[Replica, ...]:
        return replicas_of(self._where, slices)

    async def ask(self, replica: Replica, question: Question) -> Facts:
        """Raises ``Unreachable`` and ``ApiError``."""
        del question
        if self._client is None:
            raise Unreachable("no API client to reach the agent's pod with")
        namespace = self._where.service.partition("/")[0]
        path = f"{PODS.path(namespace, replica.name)}/exec"
        options = self._options
        code, output = await self._client.execute(path, options.container, options.command, DUMP_BYTES_MAX)
        text = output.decode(errors="replace")
        if code != 0:
            why = f"exit code {code}: {' '.join(text[-200:].split())}"
            return Facts(replica.name, "services", unreadable=(Unreadable(why, " ".join(options.command)),))
        return cilium.parse(text, source=replica.name)
