"""A node's own object and its Lease: registered once, kept fresh for as long as the kubelet lives."""

from __future__ import annotations

import asyncio
import os
import platform
from dataclasses import dataclass
from typing import Any

from tidegate import vtime
from tidegate.kube.api import LEASES, NODES, Api, Patch
from tidegate.kube.errors import ApiError, KubeError
from tidegate.lab.instants import micro_stamp, stamp

LEASE_NAMESPACE = "kube-node-lease"
LEASE_SECONDS = 40
RENEW_SECONDS = 10.0
"""A quarter of the lease (pkg/kubelet/kubelet.go nodeLeaseRenewIntervalFraction 0.25)."""

STATUS_SECONDS = 300.0
"""nodeStatusReportFrequency: conditions' heartbeats when nothing else changes."""

VERSION = "v1.36.2"
"""What the lab's kubelet claims to be: the version its behaviour was read from and measured on."""

POD_COUNT_MAX = 110

ZONE = "topology.kubernetes.io/zone"
REGION = "topology.kubernetes.io/region"
REGION_NAME = "lab"


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """A node's name, address and pod network (CIDR)."""

    name: str
    address: str
    pod_cidr: str
    labels: tuple[tuple[str, str], ...] = ()


def zone_labels(zone: str) -> tuple[tuple[str, str], ...]:
    """What a cloud provider would label a node of this zone with; nothing without a zone."""
    return ((REGION, REGION_NAME), (ZONE, zone)) if zone else ()


def node_object(identity: NodeIdentity) -> dict[str, Any]:
    """The Node as registered, without status."""
    labels = {
        "kubernetes.io/hostname": identity.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        **dict(identity.labels),
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": identity.name, "labels": labels},
        "spec": {"podCIDR": identity.pod_cidr, "podCIDRs": [identity.pod_cidr]},
    }


def node_status(identity: NodeIdentity, since: str, now: str) -> dict[str, Any]:
    """The Node's status: always well, the machine's own size."""
    wells = [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ]
    size = {"cpu": str(os.cpu_count() or 1), "memory": "8Gi", "pods": str(POD_COUNT_MAX), "ephemeral-storage": "64Gi"}
    return {
        "capacity": size,
        "allocatable": size,
        "addresses": [
            {"type": "InternalIP", "address": identity.address},
            {"type": "Hostname", "address": identity.name},
        ],
        "conditions": [
            {
                "type": kind,
                "status": status,
                "reason": reason,
                "message": message,
                "lastHeartbeatTime": now,
                "lastTransitionTime": since,
            }
            for kind, status, reason, message in wells
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "nodeInfo": {
            "machineID": identity.name,
            "systemUUID": identity.name,
            "bootID": identity.name,
            "kernelVersion": platform.release(),
            "osImage": "Tidegate lab",
            "containerRuntimeVersion": "process://1",
            "kubeletVersion": VERSION,
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": "amd64",
        },
    }


class NodeHeart:
    """Registers the node and keeps Lease and status fresh."""

    def __init__(self, api: Api, identity: NodeIdentity) -> None:
        self._api = api
        self._identity = identity
        self._since = ""

    async def register(self) -> None:
        """Create the Node, or take over the one that is there, and report it ready."""
        self._since = stamp(vtime.now())
        try:
            await self._api.create(NODES, node_object(self._identity))
        except ApiError as error:
            if not error.is_conflict:
                raise
        await self._report()
        await self._renew()

    async def beat(self) -> None:
        """Renew for ever; an API that does not answer is tried again at the next beat."""
        beats = 0
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            beats += 1
            try:
                await self._renew()
                if beats % int(STATUS_SECONDS / RENEW_SECONDS) == 0:
                    await self._report()
            except KubeError:
                continue

    async def _report(self) -> None:
        status = node_status(self._identity, self._since, stamp(vtime.now()))
        patch = Patch({"status": status}, style="strategic", subresource="status")
        await self._api.patch(NODES, self._identity.name, patch)

    async def _renew(self) -> None:
        now = micro_stamp(vtime.now())
        try:
            await self._api.patch(LEASES, self._identity.name, Patch({"spec": {"renewTime": now}}), LEASE_NAMESPACE)
        except ApiError as error:
            if not error.is_not_found:
                raise
            await self._api.create(LEASES, self._lease(now), LEASE_NAMESPACE)

    def _lease(self, now: str) -> dict[str, Any]:
        name = self._identity.name
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name, "namespace": LEASE_NAMESPACE},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now},
        }
