"""Tidegate's own objects in a cluster, as plain data: what a lab is given, and what an install will print.

Host-network pods with a fixed node name: an agent and its holder on every node, one coordinator. The fence is not
among them: the coordinator installs it, so that applying these objects again can never set an epoch back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tidegate.agent import roles
from tidegate.drain import fence
from tidegate.model.names import AGENT_PORT, COORDINATOR_PORT, GATE_PORT, SYSTEM_NAMESPACE
from tidegate.observers.asking import AGENT_ASK_PORT, ASK_ANNOTATION

Manifest = dict[str, Any]

IMAGES: Mapping[str, str] = {
    "tidegate/agent": "tidegate.agent.process:main",
    "tidegate/holder": "tidegate.agent.holder:main",
    "tidegate/coordinator": "tidegate.agent.coordinator:main",
    "tidegate/prober": "tidegate.agent.prober:main",
}
"""Image repository -> entry point ("module:function")."""

TAG = "dev"
GRACE_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Site:
    """The cluster the objects are for. ``nodes`` are (name, address); folders exist on every node. ``observers``: the
    coordinator's file of observers, empty for none. ``pod_networks``: by node, where each node has a real kernel's
    network to itself; then ``kernel_socket`` is empty."""

    server: str
    nodes: tuple[tuple[str, str], ...]
    kernel_socket: str
    sockets_folder: str
    state_folder: str
    kubelet_pid: int = 0
    seed: int = 0
    install: str = "main"
    observers: str = ""
    pod_networks: Mapping[str, str] = field(default_factory=dict)


def manifests(site: Site) -> list[Manifest]:
    """Everything, in an order in which it can be created."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}}
    agents = [_agent(site, name, address) for name, address in site.nodes]
    # Whose tokens command lines show, and what is bound to that account: a lab holds to its roles.
    callers = [one.manifest for one in roles.callers()]
    return [namespace, *callers, fence.fence_service(site.install), _coordinator(site), *agents]


def _agent(site: Site, node: str, address: str) -> Manifest:
    gate = address if site.kernel_socket else "127.0.0.1"
    shared = {"TIDEGATE_AGENT_SOCKET": f"{site.sockets_folder}/agent-{node}.sock"}
    agent = {
        **shared,
        "TIDEGATE_NODE": node,
        "TIDEGATE_NODE_ADDRESS": address,
        "TIDEGATE_SERVER": site.server,
        "TIDEGATE_HOLDER": f"{gate}:{GATE_PORT}",
        "TIDEGATE_STATE_DIR": f"{site.state_folder}/agent-{node}",
        "TIDEGATE_KUBELET_PID": str(site.kubelet_pid),
        "TIDEGATE_SEED": str(site.seed),
    }
    holder = {**shared, "TIDEGATE_HOLDER_HOST": gate, "TIDEGATE_HOLDER_PORT": str(GATE_PORT)}
    if site.kernel_socket:
        agent["TIDEGATE_KERNEL_SOCKET"] = site.kernel_socket
        holder["TIDEGATE_ORIGINAL_DESTINATION"] = "proxy"
    if node in site.pod_networks:
        agent["TIDEGATE_POD_NETWORKS"] = site.pod_networks[node]
    containers = [
        _container("agent", agent, ("questions", AGENT_PORT)),
        _container("holder", holder, ("gate", GATE_PORT)),
    ]
    made = _pod(f"tidegate-agent-{node}", "agent", node, containers)
    made["metadata"]["annotations"] = {ASK_ANNOTATION: f"http:{AGENT_ASK_PORT}"}
    return made


def _coordinator(site: Site) -> Manifest:
    node, address = site.nodes[0]
    name = "tidegate-coordinator"
    env = {
        "TIDEGATE_SERVER": site.server,
        "TIDEGATE_POD": name,
        "TIDEGATE_NODE_ADDRESS": address,
        "TIDEGATE_INSTALL": site.install,
        **({"TIDEGATE_OBSERVERS": site.observers} if site.observers else {}),
    }
    return _pod(name, "coordinator", node, [_container("coordinator", env, ("acknowledge", COORDINATOR_PORT))])


def _container(name: str, env: Mapping[str, str], port: tuple[str, int]) -> Manifest:
    return {
        "name": name,
        "image": f"tidegate/{name}:{TAG}",
        "env": [{"name": key, "value": value} for key, value in sorted(env.items())],
        "ports": [{"name": port[0], "containerPort": port[1], "protocol": "TCP"}],
    }


def _pod(name: str, component: str, node: str, containers: list[Manifest]) -> Manifest:
    labels = {"app.kubernetes.io/name": "tidegate", "app.kubernetes.io/component": component}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": SYSTEM_NAMESPACE, "labels": labels},
        "spec": {
            "nodeName": node,
            "hostNetwork": True,
            "priorityClassName": "system-node-critical",
            "tolerations": [{"operator": "Exists"}],
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "containers": containers,
        },
    }
