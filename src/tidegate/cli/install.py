"""``tidegate install``: an installation for a real cluster, applied, or (``--print``) as text to be read."""

from __future__ import annotations

import asyncio
import secrets
import sys
import textwrap
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any, NoReturn

import click

from tidegate import __version__
from tidegate.cli.main import REFUSED, fail
from tidegate.cli.parts import OPTIONAL, PARTS, pieces_of
from tidegate.cli.target import Duration, Reference, asking, cluster_options, patience
from tidegate.model.names import AGENT_PORT, COORDINATOR_PORT, GATE_PATH, OPERATOR, SYSTEM_NAMESPACE, WEBHOOK
from tidegate.observers.asking import AGENT_ASK_PORT, COORDINATOR_ASK_PORT

if TYPE_CHECKING:
    from tidegate.agent.manifests import Installation
    from tidegate.agent.roles import Manifest, Piece
    from tidegate.kube.kubeconfig import Cluster

WIDTH = 116
FLAT_WIDTH = 100
_ONLY = f"Parts, by commas: {', '.join((*PARTS, *OPTIONAL))}.  [all but {', '.join(OPTIONAL)}]"


class Parts(click.ParamType):  # type: ignore[type-arg] # generic only in newer clicks
    """``agent,coordinator``."""

    name = "PARTS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        chosen = tuple(filter(None, str(value).split(",")))
        if wrong := [one for one in chosen if one not in (*PARTS, *OPTIONAL)]:
            self.fail(f"{wrong[0]!r} is no part; parts are {', '.join((*PARTS, *OPTIONAL))}", param, ctx)
        if not chosen:
            self.fail(f"no part is named; parts are {', '.join(PARTS)}", param, ctx)
        return chosen


class Networks(click.ParamType):  # type: ignore[type-arg]
    """``10.244.0.0/16,fd00:10:244::/56``."""

    name = "CIDR"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(str(ip_network(one)) for one in str(value).split(",") if one)
        except ValueError as error:
            self.fail(f"{error}; write networks as 10.244.0.0/16, several by commas", param, ctx)


@click.command(short_help="Install Tidegate on your own cluster, or print what that is.")
@click.option("--print", "is_print", is_flag=True, help="Print it as YAML with its reasons, and change nothing.")
@click.option("--only", type=Parts(), default=PARTS, help=_ONLY)
@click.option("--image", default="", help="The image of all that runs: none is published; a lab has its own.")
@click.option("--operator-image", default="", help="Of operator and coordinator.  [as --image]")
@click.option("--pod-cidr", type=Networks(), default=(), help="Pods' networks, where Node objects do not have them.")
@click.option("--gate", type=Reference("deploy", "sts", "ds"), default=None, help="Print a workload's gate as a patch.")
@click.option("--uninstall", is_flag=True, help="With --print: how all of it is taken away again.")
@click.option("--remove", is_flag=True, help="Take it away: the same as `tidegate uninstall`.")
@click.option("--force", is_flag=True, help="With --remove: although workloads have gates.")
@click.option("--force-conflicts", is_flag=True, help="Take over fields that another manager keeps.")
@click.option("--timeout", default="5m", type=Duration(), help="Until everything is ready.  [default: 5m]")
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@cluster_options
def install(**given: Any) -> None:
    """Install node agents with their holders, the coordinator, the fence, the operator with its kinds and its webhook,
    and roles. The plan comes first, object by object, by a dry run of the server's; then it is applied (as field
    manager `tidegate`) and waited for. Run again it changes nothing, or goes on where it was interrupted. No pod of
    yours gets a gate by it until its namespace, or itself, is labelled tidegate.dev/gate=enabled.

    No image is published: build one (Dockerfile, docs/operating.md) and name it; a lab has its own. With --print
    nothing is asked of a cluster and nothing is changed; --gate reads one workload and prints its gate as a patch.

    \b
    tidegate install --image registry.example/tidegate:1 --dry-run
    tidegate install --print --image registry.example/tidegate:1 > tidegate.yaml
    tidegate install --print --gate deploy/web -n shop > gate.yaml
    tidegate install --print --uninstall

    \b
    Exit codes: 0 done, everything is ready     2 usage
                1 failed, or not ready in time  3 refused, nothing was changed
    """
    if not given["is_print"]:
        _apply(given)
    if given["gate"]:
        _print_gate(given)
        return
    if given["namespace"] not in ("", SYSTEM_NAMESPACE):
        raise click.UsageError(
            f"the namespace is {SYSTEM_NAMESPACE}: agents, coordinator and command lines look for each other there"
        )
    from tidegate.agent.manifests import Installation

    of = Installation(
        given["image"] or f"tidegate:{__version__}", given["pod_cidr"], operator_image=given["operator_image"]
    )
    click.echo(uninstall_text(of) if given["uninstall"] else installation_text(of, given["only"]), nl=False)


def _apply(given: dict[str, Any]) -> NoReturn:
    from tidegate.agent.manifests import Installation
    from tidegate.cli import applying

    if given["gate"] or given["uninstall"]:
        raise click.UsageError("--gate and --uninstall print: add --print (to take it away: `tidegate uninstall`)")
    if given["namespace"] not in ("", SYSTEM_NAMESPACE):
        raise click.UsageError(f"the namespace is {SYSTEM_NAMESPACE}: it cannot be chosen")
    if given["remove"]:
        applying.uninstall(Installation(given["image"] or "unknown", given["pod_cidr"]), given)
    of = Installation(given["image"], given["pod_cidr"], operator_image=given["operator_image"])
    applying.install(of, given["only"], given)


# --- the installation ---


def installation_text(of: Installation, parts: tuple[str, ...]) -> str:
    """YAML with its reasons; what it does not do yet is on top."""
    ports = {
        "question": AGENT_PORT, "coordinator": COORDINATOR_PORT,
        "ask": AGENT_ASK_PORT, "coordinator_ask": COORDINATOR_ASK_PORT,
    }  # fmt: skip
    told = [_LIMITS.format(version=__version__, image=of.image, **ports)]
    if "users" in parts:
        told.append(_BINDING)
    return "\n".join([*map(comment, told), *(_document(one) for one in pieces_of(of, parts))])


_LIMITS = """
Tidegate {version} for a real cluster: read this before you apply it.

1. No image is published. Build one (docs/operating.md, "On your own cluster") and name it with --image; these objects
say {image}.

2. What is open, and to whom. Agents and coordinator ask each other under TLS 1.3 with certificates of an authority of
this installation: port {question}/tcp of every node's InternalIP, port {coordinator}/tcp of the coordinator's node;
without a certificate the handshake fails. Command lines come in through pods/proxy, on {ask}/tcp of nodes and
{coordinator_ask}/tcp of the coordinator's: TLS, and each call shows a token for these ports alone, which the API server
is asked about. Whoever may make tokens of `tidegate-caller` (role tidegate-ask) may ask; there is nobody else.
The coordinator makes the certificates and renews them; their keys are in two Secrets of this namespace. What these
ports tell, what a caller can set off, and what was tried on them stands in docs/security.md.

3. The webhook. API servers call it on 9443/tcp of the operator's pods, under a certificate of an authority of its own.
It is asked about new pods of namespaces and pods that opted in (label tidegate.dev/gate=enabled), never about others.
While it does not answer within 2 s pods are created without a gate: `tidegate status` lists them.

4. The agent's own rights: it may patch any pod (results are annotations, and RBAC knows no annotation). Its token is
worth as much as that on every node.

5. For test clusters still. Proven on Kubernetes 1.36.2: fence and agent against unmodified
kube-proxies in nftables and iptables-nft mode, with the three capabilities below and no other; the gate on a real
kubelet with containerd; these objects and roles on the real API server, RBAC enforced. Not proven: these DaemonSets as
they stand (there is no image), other versions, iptables-legacy (its tool also needs NET_RAW), AppArmor, SELinux,
clusters of many nodes. Not read: ipvs with servers (unreadable: drains there wait to their deadline), eBPF data planes
instead of kube-proxy. Slow: 10,000 Services. docs/evidence.md and docs/observers.md have the figures.

6. Networks of pods are taken from Node objects (spec.podCIDRs). Where a CNI assigns addresses by itself, say
--pod-cidr: without it the gate is not redirected there, and pods with a gate are told to stop at once. Where pods have
IPv6 addresses say it too, both networks by a comma: then the holder listens on ::1 as well.
"""
_BINDING = f"""
The roles for people are bound by you, as in:
  kubectl create clusterrolebinding ann-look --clusterrole tidegate-look --user ann
  kubectl -n {SYSTEM_NAMESPACE} create rolebinding ann-ask --role tidegate-ask --user ann
  kubectl -n shop create rolebinding ann-view --clusterrole tidegate-view --user ann
  kubectl -n shop create rolebinding ann-drain --clusterrole tidegate-drain --user ann
tidegate-ask lets ann ask agents and coordinator anything they answer. Beside the roles, where they are wanted: `create`
on pods/eviction (budgets are then asked by a dry run), `get` and `create` on pods/exec (activity probes by exec).
"""


def _document(piece: Piece) -> str:
    return f"---\n{comment(piece.why) if piece.why else ''}{yaml_of(piece.manifest)}"


def comment(text: str) -> str:
    """Paragraphs filled; what is indented is a command, and stays as it is."""
    lines: list[str] = []
    for paragraph in text.strip().split("\n\n"):
        flowing: list[str] = []
        for line in [*paragraph.strip("\n").splitlines(), "  "]:
            if not line.startswith("  "):
                flowing.append(line)
                continue
            lines += textwrap.wrap(" ".join(flowing), WIDTH, break_on_hyphens=False)
            flowing = []
            lines += [line] if line.strip() else []
        lines.append("")
    return "".join(f"# {line}".rstrip() + "\n" for line in lines[:-1])


def yaml_of(manifest: Manifest) -> str:
    """Keys in their order, lists of words on one line."""
    import yaml

    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def listed(dumper: yaml.SafeDumper, found: list[Any]) -> yaml.Node:
        is_flat = all(isinstance(one, str) for one in found) and len(", ".join(found)) < FLAT_WIDTH
        return dumper.represent_sequence("tag:yaml.org,2002:seq", found, flow_style=is_flat)

    Plain.add_representer(list, listed)
    text: str = yaml.dump(manifest, Dumper=Plain, sort_keys=False, default_flow_style=False, width=WIDTH)
    return text


# --- taking it away ---


def uninstall_text(of: Installation) -> str:
    """A list of commands with their reasons, in the order in which they have to be run."""
    from tidegate.agent.manifests import HOLDER, STATE_FOLDER, SWEEP, sweep
    from tidegate.agent.roles import AGENT, COORDINATOR

    path = "{.spec.template.spec.containers[*].lifecycle.preStop.httpGet.path}"
    listed = "{range .items[*]}{.metadata.namespace} {.kind}/{.metadata.name} " + path + '{"\\n"}{end}'
    own = f"kubectl -n {SYSTEM_NAMESPACE}"
    swept = f"{own} apply -f - <<'END'\n{yaml_of(sweep(of))}END"
    cluster = [one.manifest for one in pieces_of(of) if "namespace" not in one.manifest["metadata"]]
    webhook = f"mutatingwebhookconfiguration/{WEBHOOK}"
    names = [f"{one['kind'].lower()}/{one['metadata']['name']}" for one in reversed(cluster)]
    kinds = [one for one in names if one.startswith("customresourcedefinition/")]
    named = [one for one in names if one not in (*kinds, webhook, f"namespace/{SYSTEM_NAMESPACE}")]
    steps = (
        ("What is held is nobody's afterwards: restore or drain it first.", "tidegate status --orphans -A"),
        ("No pod gets a gate any more. Those that have one keep it until they are made anew: restart their owners.",
         f"kubectl delete --ignore-not-found {webhook}"),
        ("Releases end while the operator is there to put right what they changed; then it goes, while there are"
         " holders for its own gate. Deployments and Services stay as they are.",
         f"kubectl delete releases.tidegate.dev --all -A --timeout=1m\n{own} delete deployment {OPERATOR}\n"
         f"{own} wait --for=delete pod -l app.kubernetes.io/component=operator --timeout=2m"),
        (f"Take the hook {GATE_PATH}CONTAINER out of these, and let them roll out: without a holder a gate is an error"
         " to the kubelet, and the pod is told to stop at once.",
         f"kubectl get deploy,sts,ds -A -o jsonpath='{listed}' | grep {GATE_PATH}"),
        ("No more epochs, then no more holds. An agent ends when its last hold is over.",
         f"{own} delete deployment {COORDINATOR}\n{own} delete daemonset {AGENT} {HOLDER}\n"
         f"{own} wait --for=delete pod -l app.kubernetes.io/name=tidegate --timeout=5m"),
        ("The table `inet tidegate` is the only thing that stays in a node's kernel: this takes it away everywhere."
         " The image is the one that is installed: name it with --image.",
         f"{swept}\n{own} rollout status daemonset {SWEEP} --timeout=5m\n{own} delete daemonset {SWEEP}"),
        ("The fence goes with the namespace. Where an object of our kinds has a finalizer left, take it off: kubectl"
         " patch ... --type merge -p '{\"metadata\":{\"finalizers\":null}}'.",
         f"kubectl delete --ignore-not-found {' '.join(named)}\nkubectl delete --ignore-not-found {' '.join(kinds)}\n"
         f"kubectl delete namespace {SYSTEM_NAMESPACE}"),
        (f"What stays: {STATE_FOLDER} on every node, with its ledger; annotations and labels tidegate.dev/... on pods"
         " and Services; bindings that you made; labels that `prepare` gave (`tidegate prepare --abort` takes them"
         " back).", ""),
    )  # fmt: skip
    head = comment(f"How Tidegate {__version__} is taken away. Nothing is done by printing this; run it step by step.")
    return head + "".join(
        f"\n{comment(f'{number}. {why}')}{f'{lines}' + chr(10) if lines else ''}"
        for number, (why, lines) in enumerate(steps, start=1)
    )


# --- the gate ---


def _print_gate(given: dict[str, Any]) -> None:
    from tidegate.drain.gating import CannotBeGated, gate_patch
    from tidegate.kube.kubeconfig import load

    kind, name = given["gate"]
    cluster = load(given["kubeconfig"], given["context"])
    namespace = given["namespace"] or cluster.namespace
    with asking(cluster, namespace):
        workload = asyncio.run(_read(cluster, kind, namespace, name))
    try:
        found = gate_patch(workload, secrets.token_hex(16))
    except CannotBeGated as error:
        fail(f"{kind}/{name} in namespace {namespace} gets no gate: {error}", REFUSED)
    if not found.patch:
        click.echo(
            f"{kind}/{name} in namespace {namespace} has its gate already; grace {found.grace_seconds} s", err=True
        )
        sys.exit(0)
    told = f"""
The gate for {kind}/{name} in namespace {namespace} of {cluster.server}. Before its containers are told to stop, the
node waits until nobody routes to the pod. Apply it with
  kubectl -n {namespace} patch {kind} {name} --patch-file gate.yaml
It is a change of the template, so it rolls out: the pods that this rollout ends have no gate yet. Nodes without a
holder (`tidegate doctor`) tell a pod with a gate to stop at once. Put the same into the manifests it comes from, or
the next apply takes it out.
"""
    if found.is_on_host:
        told += """

Its pods use their node's network, so the hook names 127.0.0.1 and a token, by which the node tells whose it is. Pod
Security takes a hook that names a host at level privileged only, where alone such pods are taken too. The pods' traffic
is told by the ports that their containers declare: what else they listen on is not waited for. Of several pods of this
workload that leave one node at once, none is held."""
    if found.replaced:
        told += (
            f"\n\nIt takes the place of a plain sleep in {', '.join(found.replaced)}: the holder falls back to 15 s."
        )
    click.echo(f"{comment(told)}{yaml_of(found.patch)}", nl=False)


async def _read(cluster: Cluster, kind: str, namespace: str, name: str) -> Manifest:
    from tidegate.client.kinds import RESOURCES
    from tidegate.kube.connect import open_cluster

    async with open_cluster(cluster, patience=patience()) as api:
        return await api.get(RESOURCES[kind], name, namespace)
