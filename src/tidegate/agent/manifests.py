"""An installation on real nodes, as plain data: what ``tidegate install --print`` shows.

The agent and the holder are two DaemonSets. While an agent is replaced its node's holder stays, and keeps the kubelet's
calls for the fallback sleep; were they one pod, the redirect would lead nowhere and the kubelet would fail open. Only
the agent sees the node's processes and has a token. ``addon.py`` is what a lab is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network

from tidegate.agent import operator_objects, roles
from tidegate.agent.operator_objects import SEALED, TLS_FOLDER, USER
from tidegate.agent.roles import LABELS, Manifest, Piece
from tidegate.drain import fence
from tidegate.model.names import COORDINATOR_PORT, GATE_PORT, SYSTEM_NAMESPACE
from tidegate.observers.asking import AGENT_ASK_PORT, ASK_ANNOTATION, COORDINATOR_ASK_PORT
from tidegate.observers.behavioural import PROBER_PORT

PARTS = ("agent", "coordinator", "fence", "operator", "webhook", "users")
OPTIONAL = ("prober",)
"""Only where they are named."""
CAPABILITIES = ("NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE")
"""Of the agent, all others are dropped: read rules and connections, keep one table; enter a pod's network namespace;
find it among other users' processes. The tests on a real kube-proxy run with these and no other."""
AGENT_SECRET = "tidegate-agent-tls"
"""As ``agent.issuer`` makes it; written down here too, for that needs ``cryptography``."""
HOLDER = "tidegate-holder"
SWEEP = "tidegate-sweep"
PROBER = "tidegate-prober"
SOCKET_FOLDER = "/run/tidegate"
STATE_FOLDER = "/var/lib/tidegate"
READY_FILE = "/tmp/ready"
AGENT_GRACE_SECONDS = 3600
"""An agent that is told to stop serves until its holds are over: what a workload's grace may be for that to be so."""
HOLDER_GRACE_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Installation:
    """``pod_networks``: of all pods, where Node objects do not say (a CNI with address management of its own).
    ``operator_image``: of coordinator and operator, which need no tools of the agent's; empty for the same.
    ``operator_env``: variables of the operator, where a cluster has it otherwise (a lab, without volumes)."""

    image: str
    pod_networks: tuple[str, ...] = ()
    install: str = "main"
    operator_image: str = ""
    operator_env: tuple[tuple[str, str], ...] = ()

    @property
    def loopbacks(self) -> tuple[str, ...]:
        """Where the gate's redirect arrives: IPv4's, unless it is known that pods have other addresses."""
        versions = {ip_network(one).version for one in self.pod_networks} or {4}
        return tuple(address for version, address in ((4, "127.0.0.1"), (6, "::1")) if version in versions)


def pieces(of: Installation, parts: tuple[str, ...] = PARTS) -> list[Piece]:
    """The chosen parts, in an order in which they can be created."""
    found = [Piece("namespace", _namespace(), _WHY_PRIVILEGED)]
    if "fence" in parts:
        found.append(Piece("fence", {**fence.fence_service(of.install)}, _WHY_FENCE))
    if "coordinator" in parts:
        found += [*roles.coordinator(of.install), Piece("coordinator", _coordinator(of), _WHY_COORDINATOR)]
    if asked := [one for one in ("coordinator", "agent", "operator") if one in parts]:
        found += roles.callers(asked[0])
    if "agent" in parts:
        found += roles.agent(reads_node=not of.pod_networks)
        found += [Piece("agent", _holder(of), _WHY_HOLDER), Piece("agent", _agent(of), _WHY_AGENT)]
    if "operator" in parts:
        found += [*roles.operator(), *operator_objects.operator(of.operator_image or of.image, of.operator_env)]
    if "webhook" in parts:
        found += operator_objects.webhook()
    if "prober" in parts:
        found += [Piece("prober", _probers(), _WHY_PROBERS), Piece("prober", _prober(of), _WHY_PROBER)]
    return found + (roles.users() if "users" in parts else [])


_WHY_PRIVILEGED = """
Pod Security "privileged", because the agent uses its node's network and processes, three capabilities and two folders
of the node, and `baseline` forbids each of these. Nothing else belongs into this namespace: who may create pods or
exec here has the nodes.
"""
_WHY_FENCE = """
The fence: a Service without pods, whose one endpoint shows an epoch. Nothing listens there. The coordinator writes
its EndpointSlices, and makes this Service too where it is missing.
"""
_WHY_COORDINATOR = """
One at a time: it holds a Lease and a port of its node. While there is none, held gates go on holding, until their
deadline at most.
"""
_WHY_HOLDER = """
Keeps the kubelet's preStop calls open and asks the agent. It listens on loopback only, has no capability and no
token, and does not see the node's processes. OnDelete: it is replaced when you delete its pod, best on a drained node;
while a node has no holder its kubelet goes on at once (SIGTERM without a wait). It is root for the agent's socket,
which is for root alone.
"""
_WHY_AGENT = f"""
Reads the node's rules, connections and sockets, keeps the nftables table `inet tidegate` (the gate's redirect) and
drains. The next one comes up beside it (maxSurge 1): both listen on the same ports of the node (SO_REUSEPORT). So none
is declared: of a pod on its node's network each declared port is a host port (k8s pkg/apis/core/v1/defaults.go,
defaultHostNetworkPorts), and the scheduler lets no second pod with it onto the node. Told to stop, it hears no new
question and serves until its holds are over, {AGENT_GRACE_SECONDS} s at most. Ready is told by a file of its own: a
call to the port may be answered by the other. No liveness probe and no memory limit: an agent that is killed loses its
holds. The API allows no `allowPrivilegeEscalation: false` beside SYS_ADMIN. AppArmor's usual profile forbids looking at
other pods' processes.
"""
_WHY_PROBERS = """
Lists the probers, for the coordinator's observer of kind `behavioural` (docs/observers.md).
"""
_WHY_PROBER = """
For nodes without an agent: connects to the fence through the node's data plane and tells which epoch answered. No
capability, no token, not root, the pod network. Label the nodes it is for: kubectl label node NODE tidegate.dev/prober=
"""


def _namespace() -> Manifest:
    levels = {f"pod-security.kubernetes.io/{mode}": "privileged" for mode in ("enforce", "audit", "warn")}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE, "labels": levels}}


def _coordinator(of: Installation) -> Manifest:
    container = {
        **_container(of, "coordinator"),
        "image": of.operator_image or of.image,
        "env": [
            _from("TIDEGATE_POD", "metadata.name"),
            _from("TIDEGATE_NODE_ADDRESS", "status.hostIP"),
            {"name": "TIDEGATE_INSTALL", "value": of.install},
            {"name": "TIDEGATE_TLS_DIR", "value": TLS_FOLDER},
            {"name": "TIDEGATE_TLS_ISSUE", "value": "1"},
        ],
        "volumeMounts": [{"name": "tls", "mountPath": TLS_FOLDER}],
        "ports": [_port("acknowledge", COORDINATOR_PORT), _port("ask", COORDINATOR_ASK_PORT)],
        "readinessProbe": {
            "httpGet": {"path": "/healthz", "port": COORDINATOR_ASK_PORT, "scheme": "HTTPS"},
            "periodSeconds": 5,
        },
        "resources": {"requests": {"cpu": "20m", "memory": "96Mi"}},
        "securityContext": {**SEALED, "runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER},
    }
    spec = {
        "serviceAccountName": roles.COORDINATOR,
        "priorityClassName": "system-cluster-critical",
        "hostNetwork": True,
        "dnsPolicy": "ClusterFirstWithHostNet",
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "securityContext": {"fsGroup": USER},
        "containers": [container],
        "volumes": [{"name": "tls", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}],
    }
    labels = {**LABELS, "app.kubernetes.io/component": "coordinator"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": roles.COORDINATOR, "namespace": SYSTEM_NAMESPACE, "labels": labels},
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def _holder(of: Installation) -> Manifest:
    container = {
        **_container(of, "holder"),
        "env": [
            {"name": "TIDEGATE_AGENT_SOCKET", "value": f"{SOCKET_FOLDER}/agent.sock"},
            {"name": "TIDEGATE_HOLDER_HOST", "value": ",".join(of.loopbacks)},
            {"name": "TIDEGATE_HOLDER_PORT", "value": str(GATE_PORT)},
            {"name": "TIDEGATE_ORIGINAL_DESTINATION", "value": "sockopt"},
        ],
        "ports": [_port("gate", GATE_PORT)],
        "resources": {"requests": {"cpu": "5m", "memory": "32Mi"}},
        "securityContext": {**SEALED, "runAsUser": 0},
        "volumeMounts": [{"name": "sockets", "mountPath": SOCKET_FOLDER}],
    }
    spec = {
        **_on_every_node(HOLDER_GRACE_SECONDS),
        "automountServiceAccountToken": False,
        "containers": [container],
        "volumes": [_folder("sockets", SOCKET_FOLDER)],
    }
    return _daemonset(HOLDER, "holder", spec, {"type": "OnDelete"})


def _agent(of: Installation) -> Manifest:
    networks = [{"name": "TIDEGATE_POD_NETWORKS", "value": ",".join(of.pod_networks)}] if of.pod_networks else []
    container = {
        **_container(of, "node"),
        "name": "agent",
        "env": [
            _from("TIDEGATE_NODE", "spec.nodeName"),
            _from("TIDEGATE_NODE_ADDRESS", "status.hostIP"),
            {"name": "TIDEGATE_AGENT_SOCKET", "value": f"{SOCKET_FOLDER}/agent.sock"},
            {"name": "TIDEGATE_HOLDER", "value": f"{of.loopbacks[0]}:{GATE_PORT}"},
            {"name": "TIDEGATE_STATE_DIR", "value": STATE_FOLDER},
            {"name": "TIDEGATE_TLS_DIR", "value": TLS_FOLDER},
            {"name": "TIDEGATE_READY_FILE", "value": READY_FILE},
            *networks,
        ],
        "readinessProbe": {"exec": {"command": ["test", "-e", READY_FILE]}, "periodSeconds": 2},
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
        "securityContext": {
            "runAsUser": 0,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"], "add": list(CAPABILITIES)},
            "seccompProfile": {"type": "RuntimeDefault"},
            "appArmorProfile": {"type": "Unconfined"},
        },
        "volumeMounts": [
            {"name": "sockets", "mountPath": SOCKET_FOLDER},
            {"name": "state", "mountPath": STATE_FOLDER},
            {"name": "tls", "mountPath": TLS_FOLDER, "readOnly": True},
            {"name": "scratch", "mountPath": "/tmp"},
        ],
    }
    spec = {
        **_on_every_node(AGENT_GRACE_SECONDS),
        "serviceAccountName": roles.AGENT,
        "hostPID": True,
        "containers": [container],
        "volumes": [
            _folder("sockets", SOCKET_FOLDER),
            _folder("state", STATE_FOLDER),
            {"name": "tls", "secret": {"secretName": AGENT_SECRET, "defaultMode": 0o400}},
            {"name": "scratch", "emptyDir": {"sizeLimit": "256Mi"}},
        ],
    }
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    made = _daemonset(roles.AGENT, "agent", spec, rolling)
    made["spec"]["template"]["metadata"]["annotations"] = {ASK_ANNOTATION: f"https:{AGENT_ASK_PORT}"}
    return made


def _probers() -> Manifest:
    ports = [{"name": "probe", "port": PROBER_PORT, "protocol": "TCP"}]
    selector = {**LABELS, "app.kubernetes.io/component": "prober"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": PROBER, "namespace": SYSTEM_NAMESPACE, "labels": selector},
        "spec": {"clusterIP": "None", "selector": selector, "ports": ports},
    }


def _prober(of: Installation) -> Manifest:
    container = {
        **_container(of, "prober"),
        "env": [_from("TIDEGATE_NODE", "spec.nodeName"), _from("TIDEGATE_POD_ADDRESS", "status.podIP")],
        "ports": [{"name": "probe", "containerPort": PROBER_PORT, "protocol": "TCP"}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": PROBER_PORT}, "periodSeconds": 5},
        "resources": {"requests": {"cpu": "5m", "memory": "48Mi"}},
        "securityContext": {**SEALED, "runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER},
    }
    spec = {
        "nodeSelector": {"kubernetes.io/os": "linux", "tidegate.dev/prober": ""},
        "tolerations": [{"operator": "Exists"}],
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "containers": [container],
    }
    return _daemonset(PROBER, "prober", spec, {"type": "RollingUpdate"})


def sweep(of: Installation) -> Manifest:
    """Takes the gate's redirect off every node once agents are gone; they would put it back."""
    script = "nft add table inet tidegate && nft delete table inet tidegate && touch /tmp/swept && exec sleep 3600"
    container = {
        "name": "sweep",
        "image": of.image,
        "command": ["sh", "-c", script],
        "readinessProbe": {"exec": {"command": ["test", "-e", "/tmp/swept"]}, "periodSeconds": 1},
        "securityContext": {
            "runAsUser": 0,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    spec = {**_on_every_node(0), "automountServiceAccountToken": False, "containers": [container]}
    return _daemonset(SWEEP, "sweep", spec, {"type": "RollingUpdate"})


def _on_every_node(grace_seconds: int) -> Manifest:
    return {
        "priorityClassName": "system-node-critical",
        "hostNetwork": True,
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"operator": "Exists"}],
        "terminationGracePeriodSeconds": grace_seconds,
    }


def _daemonset(name: str, component: str, spec: Manifest, strategy: Manifest) -> Manifest:
    labels = {**LABELS, "app.kubernetes.io/component": component}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": SYSTEM_NAMESPACE, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "updateStrategy": strategy,
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def _container(of: Installation, role: str) -> Manifest:
    return {"name": role, "image": of.image, "command": ["tidegate", "agent", role]}


def _from(name: str, field: str) -> Manifest:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": field}}}


def _port(name: str, port: int) -> Manifest:
    return {"name": name, "containerPort": port, "hostPort": port, "protocol": "TCP"}


def _folder(name: str, path: str) -> Manifest:
    return {"name": name, "hostPath": {"path": path, "type": "DirectoryOrCreate"}}
