"""``tidegate lab``: a Kubernetes-compatible cluster on this machine."""

from __future__ import annotations

import asyncio
import json
import math
import signal
import sys
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from tidegate.cli.main import FAILED, REFUSED, USAGE, fail

if TYPE_CHECKING:
    from tidegate.lab.folder import LabFolder, LabRecord

TIDEGATE_ADDON = "tidegate.rehearse.addons:TIDEGATE"
OFFER_ADDON = "tidegate.rehearse.addons:OFFER"
INGRESS_ADDON = "tidegate.rehearse.addons:EDGE"


def _complete_lab(ctx: click.Context, param: click.Parameter, typed: str) -> list[CompletionItem]:
    from tidegate.lab.folder import known_labs

    del ctx, param
    return [CompletionItem(name) for name in known_labs() if name.startswith(typed)]


lab_option = click.option(
    "--lab", "name", default="default", show_default=True, envvar="TIDEGATE_LAB_NAME", metavar="NAME",
    shell_complete=_complete_lab, help="Which lab.",
)  # fmt: skip


@click.group(short_help="A Kubernetes-compatible cluster on this machine.")
def lab() -> None:
    """A Kubernetes-compatible cluster on this machine: no Docker, no root, Linux loopback addresses; or, as root,
    network namespaces with real netfilter (--network kernel).

    \b
    tidegate lab up --detach
    export KUBECONFIG=$(tidegate lab kubeconfig --path)
    kubectl create deployment web --image=tidegate/echo:1
    tidegate lab down
    """


@lab.command()
@lab_option
@click.option("--nodes", default=3, show_default=True, type=click.IntRange(1, 200), help="How many nodes.")
@click.option(
    "--zones", default=0, show_default=True, type=click.IntRange(0, 200), help="Deal the nodes out to so many zones."
)
@click.option(
    "--dns", default=0, show_default=True, type=click.IntRange(0, 200), help="DNS servers, on so many of the nodes."
)
@click.option("--dual-stack", is_flag=True, help="List an IPv6 address for each pod; requests still go by IPv4.")
@click.option("-d", "--detach", is_flag=True, help="Return once it is up; it runs until `tidegate lab down`.")
@click.option("--seed", default=0, show_default=True, help="Seeds names, jitter and endpoint choice.")
@click.option("--port", default=6443, show_default=True, type=click.IntRange(1, 65535), help="The API server's port.")
@click.option(
    "--block", default=0, type=click.IntRange(0, 250), help="Use 127.B, 127.B+1 and 127.B+2.  [default: first free]"
)
@click.option(
    "--min-sync", default=1.0, show_default=True, type=click.FloatRange(0), help="kube-proxy's minSyncPeriod, seconds."
)
@click.option(
    "--observers", type=click.Path(exists=True, dir_okay=False), metavar="FILE",
    help="Observers that are no nodes: ingress controllers, load balancers. See docs/observers.md.",
)  # fmt: skip
@click.option(
    "--network",
    type=click.Choice(["loopback", "kernel"]),
    default="loopback",
    show_default=True,
    help="Loopback addresses, or namespaces with real netfilter in each (root).",
)
@click.option(
    "--proxy", type=click.Choice(["nft-1.36", "nft-1.30", "iptables-1.36"]), default="nft-1.36", show_default=True,
    help="As which kube-proxy the nodes' rules are laid out.",
)  # fmt: skip
@click.option(
    "--ingress", type=click.Choice(["traefik", "haproxy", "envoy"]),
    help="A real proxy before the pods, and its observer: Traefik with its own controller; HAProxy or Envoy fed by a "
    "small feeder of the lab's.",
)  # fmt: skip
@click.option(
    "--throttle", metavar="DURATION", default="",
    help="Traefik's --providers.providersThrottleDuration, as 500ms.  [default: its own, 2s]",
)  # fmt: skip
@click.option(
    "--tls", is_flag=True, help="The API server under TLS, too: on the next port, which the kubeconfig names."
)
@click.option("--bare", is_flag=True, help="Without Tidegate: `tidegate install` brings it.")
def up(**options: Any) -> None:
    """Boot a lab. In the foreground, Ctrl-C takes it down and leaves nothing behind.

    \b
    tidegate lab up
    tidegate lab up --detach --lab other --nodes 5 --zones 3
    tidegate lab up --network kernel --proxy iptables-1.36
    tidegate lab up --ingress traefik
    """
    from tidegate.lab import boot
    from tidegate.lab.settings import LabSettings

    for one in ("observers", "ingress"):
        if options[one] and options["bare"]:
            raise click.UsageError(f"--bare has no coordinator that could ask --{one}")
    if options["throttle"] and options["ingress"] != "traefik":
        raise click.UsageError("--throttle is Traefik's: it goes with --ingress traefik")
    if options["dns"]:
        _check_dns(options["network"])
    settings = LabSettings(
        name=options["name"],
        nodes=options["nodes"],
        seed=options["seed"],
        block=options["block"],
        port=options["port"],
        min_sync_seconds=options["min_sync"],
        addons=_addons(options),
        zones=options["zones"],
        dual_stack=options["dual_stack"],
        dns=options["dns"],
        addon_options=_addon_options(options),
        network=options["network"],
        proxy=options["proxy"],
        tls=options["tls"],
    )
    try:
        running = boot.start(settings, detach=options["detach"])
    except boot.AlreadyUp as error:
        fail(str(error), REFUSED)
    record = running.record
    nodes = "1 node" if record.nodes == 1 else f"{record.nodes} nodes"
    click.echo(f'lab "{record.name}" is up: {nodes}, {record.server}', err=True)
    if options["ingress"]:
        click.echo(_ingress_words(options["ingress"], record), err=True)
    click.echo(f"export KUBECONFIG={running.folder.kubeconfig}")
    if options["detach"]:
        return
    click.echo("Ctrl-C takes it down", err=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = running.wait()
    except KeyboardInterrupt:
        code = 0
    running.close(keep_state=bool(code))
    if code:
        fail(f"the lab ended: {running.last_words() or 'killed'} (its log is {running.folder.own_log})")
    click.echo(f'lab "{record.name}" is down', err=True)


def _addons(options: dict[str, Any]) -> tuple[str, ...]:
    if options["bare"]:
        return (OFFER_ADDON,)
    return (TIDEGATE_ADDON, OFFER_ADDON, *([INGRESS_ADDON] if options["ingress"] else []))


def _addon_options(options: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """What the add-ons are told. Observers and proxy are looked at here too: what is wrong is said before a boot."""
    from pathlib import Path

    from tidegate.observers.config import ConfigError, load, parse
    from tidegate.rehearse import ingress
    from tidegate.rehearse.addons import INGRESS, OBSERVERS, THROTTLE

    told: list[tuple[str, str]] = []
    path = Path(options["observers"]).resolve() if options["observers"] else None
    try:
        if path is not None:
            load(path)
            told.append((OBSERVERS, str(path)))
        if options["ingress"]:
            kind = ingress.KINDS[options["ingress"]]
            if kind.path() is None:
                fail(f"--ingress {kind.name} needs the program {kind.program}, which is not here: {kind.get}", FAILED)
            parse(ingress.composed(path.read_text("utf-8") if path is not None else "", kind))
            told += [(INGRESS, kind.name), *([(THROTTLE, options["throttle"])] if options["throttle"] else [])]
    except ConfigError as error:
        fail(str(error), USAGE)
    return tuple(told)


def _ingress_words(name: str, record: LabRecord) -> str:
    """What was put up, and where requests go."""
    from urllib.parse import urlsplit

    from tidegate.lab.config import Addressing
    from tidegate.rehearse import ingress

    kind = ingress.KINDS[name]
    host = urlsplit(record.server).hostname or ""
    node = Addressing(int(host.split(".")[1])).node(1)
    return (
        f"ingress: {kind.label}; deployment/{kind.workload} in {kind.namespace}\n"
        f"  requests go to http://{node}:{ingress.NODE_PORT}, by Ingresses with ingressClassName {kind.name}"
    )


@lab.command()
@lab_option
@click.option("--all", "every", is_flag=True, help="Take every lab down.")
def down(name: str, every: bool) -> None:
    """End a lab: every process of it, and its state."""
    from tidegate.lab import boot
    from tidegate.lab.folder import known_labs

    names = known_labs() if every else [name]
    if not names:
        click.echo("there is no lab", err=True)
    for one in names:
        if boot.stop(one):
            click.echo(f'lab "{one}" is down', err=True)
        elif not every:
            fail(f'there is no lab "{one}"; `tidegate lab status --all` lists them', FAILED)


@lab.command()
@lab_option
@click.option("--all", "every", is_flag=True, help="List every lab.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def status(name: str, every: bool, output: str) -> None:
    """Is it up, where, with which nodes and faults."""
    from tidegate.lab.folder import LabFolder, known_labs

    found: list[dict[str, Any]] = []
    for one in known_labs() if every else [name]:
        folder = LabFolder(one)
        record = folder.running()
        if record is None:
            found.append({"name": one, "state": "down"})
        else:
            found.append(asyncio.run(_ask_status(record)))
    if output == "json":
        click.echo(json.dumps(found if every else found[0], indent=2))
    else:
        for entry in found:
            _print_status(entry)
        if every and not found:
            click.echo("there is no lab", err=True)
    if not every and found[0]["state"] != "up":
        sys.exit(FAILED)


async def _ask_status(record: LabRecord) -> dict[str, Any]:
    from tidegate.kube.connect import open_api
    from tidegate.kube.errors import Unreachable
    from tidegate.lab.control import status_of

    known = {"pid": record.pid, "started_at": record.started_at}
    async with open_api(record.server) as client:
        try:
            answer = await status_of(client)
        except Unreachable:  # its reaper lives: it boots, or is being taken down
            return {"name": record.name, "state": "not answering", "server": record.server, **known}
        return {"state": "up", **answer, **known}


def _print_status(entry: dict[str, Any]) -> None:
    if entry["state"] == "down":
        click.echo(f'lab "{entry["name"]}" is down')
        return
    if entry["state"] != "up":
        click.echo(
            f'lab "{entry["name"]}" runs since {entry["started_at"]}, but {entry["server"]} does not answer (yet)'
        )
        return
    network = f", network kernel, {entry['proxy']}" if entry["network"] == "kernel" else ""
    click.echo(f'lab "{entry["name"]}" is up since {entry["started_at"]}: {entry["server"]}{network}')
    for node in entry["nodes"]:
        wrong = [_fault_words(fault) for fault in entry["faults"] if fault["node"] == node["name"]]
        click.echo(f"  {node['name']}  {node['address']}  {', '.join(wrong)}".rstrip())
    for fault in entry["faults"]:
        if not fault["node"]:
            click.echo(f"  API server  {fault['share']:.0%} of requests: {_fault_words(fault)}")


def _fault_words(fault: dict[str, Any]) -> str:
    seconds = fault["seconds"]
    until = f"until {fault['kind'].partition('-')[0]}-restart"
    return f"{fault['kind']} {until if seconds is None else f'{seconds:.1f} s'}"


def running_lab(name: str) -> tuple[LabFolder, LabRecord]:
    """The lab of this name, or one clear line and out."""
    from tidegate.lab.folder import LabFolder

    folder = LabFolder(name)
    record = folder.running()
    if record is None:
        fail(f'lab "{name}" is not up; `tidegate lab up --lab {name}` boots it')
    return folder, record


@lab.command(
    short_help="Run a command inside its network.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
@click.option("--node", default="", metavar="NODE", help="Stand on this node.  [default: outside the cluster]")
@lab_option
def enter(name: str, node: str, command: tuple[str, ...]) -> None:
    """Run a command inside the network of a lab that was brought up with --network kernel.

    Without --node it is a client's, outside the cluster: it reaches the nodes' addresses, so NodePorts, and nothing
    else. On a node it reaches ClusterIPs and pods too, as whatever runs on a node does. KUBECONFIG is the lab's.

    \b
    tidegate lab enter -- curl http://10.16.0.11:30080/
    tidegate lab enter --node node-1 -- conntrack -L
    """
    from tidegate.lab.network.namespaces import become

    folder, record = running_lab(name)
    found = asyncio.run(_ask_status(record))
    places = {one["name"]: one["namespace"] for one in [*found.get("nodes", ()), *found.get("clients", ())]}
    if record.network != "kernel":
        fail(f'lab "{name}" has loopback addresses, nothing to enter; `tidegate lab up --network kernel` has', REFUSED)
    if (node or "client") not in places:
        fail(f'lab "{name}" has no node "{node}"; it has {", ".join(places) or "none yet"}', FAILED)
    try:
        become(places[node or "client"], command, {**folder.marks, "KUBECONFIG": str(folder.kubeconfig)})
    except PermissionError as error:
        fail(f"{error.strerror or error}: entering a network namespace is root's to do", FAILED)
    except OSError as error:
        fail(f"{command[0]}: {(error.strerror or str(error)).lower()}", FAILED)


@lab.command()
@lab_option
@click.option("--path", is_flag=True, help="Print the file's path instead of its content.")
def kubeconfig(name: str, path: bool) -> None:
    """Print the lab's kubeconfig. Your own is never touched.

    \b
    export KUBECONFIG=$(tidegate lab kubeconfig --path)
    """
    folder, _ = running_lab(name)
    click.echo(str(folder.kubeconfig) if path else folder.kubeconfig.read_text(), nl=path)


@lab.command()
@click.argument("user", required=False, metavar="[NAME]")
@click.option(
    "--rule", "rules", multiple=True, metavar="VERBS:RESOURCES",
    help='What it may do, as "get,list,watch:pods,pods/log,endpointslices.discovery.k8s.io".',
)  # fmt: skip
@click.option("-n", "--namespace", default="", metavar="NS", help="Confine its rules to one namespace.  [default: all]")
@click.option("--path", is_flag=True, help="Print the kubeconfig's path instead of its content.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@lab_option
def token(name: str, user: str | None, **options: Any) -> None:
    """Print a kubeconfig whose user may do what rules say.

    What no rule allows is answered 403, in Kubernetes' words. Rules given again replace the old ones. Without NAME,
    list the tokens.

    \b
    tidegate lab token alice --rule get,list,watch:pods,services --rule patch:pods -n demo
    KUBECONFIG=$(tidegate lab token alice --path) kubectl delete pod web   # forbidden
    """
    from tidegate.kube.errors import ApiError

    folder, record = running_lab(name)
    if user is None and (options["rules"] or options["namespace"] or options["path"]):
        raise click.UsageError("whose token? give a NAME")
    try:
        known = asyncio.run(_registered(record, user or "", options["rules"], options["namespace"]))
    except ApiError as error:
        fail(error.message, USAGE)
    if user is None:
        _print_tokens(known, options["output"])
        return
    found = next((one for one in known if one["name"] == user), None)
    if found is None:
        fail(f'lab "{name}" has no token "{user}"; give it a --rule, as `--rule get,list,watch:pods`', FAILED)
    if options["output"] == "json":
        click.echo(json.dumps(found, indent=2))
        return
    folder.write_kubeconfig(record.server, user, found["token"])
    path = folder.kubeconfig_of(user)
    click.echo(str(path) if options["path"] else path.read_text(), nl=options["path"])


async def _registered(record: LabRecord, user: str, rules: tuple[str, ...], namespace: str) -> list[dict[str, Any]]:
    """The lab's tokens, after the rules for ``user``, where some are given, are in force."""
    from tidegate.kube.connect import open_api
    from tidegate.lab.control import register_token, tokens_of

    async with open_api(record.server) as client:
        if rules:
            await register_token(client, user, rules, namespace)
        return await tokens_of(client)


def _print_tokens(known: list[dict[str, Any]], output: str) -> None:
    if output == "json":
        click.echo(json.dumps(known, indent=2))
        return
    if not known:
        click.echo("no token has rules; `tidegate lab token NAME --rule get,list,watch:pods` makes one", err=True)
    for one in known:
        click.echo(f"{one['name']}  {'; '.join(one['rules'])}")


def _check_dns(network: str) -> None:
    from importlib.util import find_spec

    if network != "loopback":
        raise click.UsageError("--dns serves on loopback addresses: it does not go with another --network")
    if find_spec("dns") is None:
        fail("--dns needs dnspython: pip install 'tidegate[dns]'")


_FAULTS = (
    "proxy-freeze", "proxy-lag", "proxy-kill", "proxy-restart",
    "dns-freeze", "dns-lag", "dns-kill", "dns-restart", "api-errors", "clear",
)  # fmt: skip


def _seconds(ctx: click.Context, param: click.Parameter, given: float) -> float:
    del ctx, param
    if not math.isfinite(given) or given < 0:
        raise click.BadParameter(f"{given:g} is no length of time")
    return given


@lab.command(short_help="Break a node's proxy, or the API server.")
@click.argument("kind", type=click.Choice(_FAULTS), metavar="FAULT")
@click.option("--node", default="", metavar="NODE", help="Which node's proxy, or DNS server.")
@click.option("--seconds", default=0.0, type=float, callback=_seconds, help="For how long, or how far behind.")
@click.option("--share", default=None, type=click.FloatRange(0, 1, min_open=True),
              help="api-errors: of how many requests.  [default: 0.3]")  # fmt: skip
@lab_option
def fault(kind: str, node: str, seconds: float, share: float | None, name: str) -> None:
    """Break one node's proxy, while its kernel goes on forwarding; or the API server, for whoever asks it.

    \b
    FAULT is one of
    proxy-freeze   stopped for --seconds, as by SIGSTOP
    proxy-lag      sees every change --seconds late, until cleared
    proxy-kill     gone for --seconds (0: until proxy-restart)
    proxy-restart  started anew: it lists everything again
    dns-*          the same of the node's DNS server, where the lab has them
    api-errors     for --seconds, a --share of requests is answered 429, 409, 500 or 503
    clear          end every fault of the node; of the lab, without --node

    \b
    tidegate lab fault proxy-freeze --node node-2 --seconds 20
    tidegate lab fault api-errors --seconds 20 --share 0.5
    tidegate lab fault clear --node node-2
    """
    from tidegate.kube.connect import open_api
    from tidegate.kube.errors import ApiError
    from tidegate.lab.control import apply_fault
    from tidegate.lab.faults import Fault

    is_of_api = kind == "api-errors"
    if (kind.endswith(("-freeze", "-lag")) or is_of_api) and not seconds:
        raise click.UsageError(f"{kind} wants --seconds")
    if is_of_api and node:
        raise click.UsageError("api-errors is the API server's: it takes no --node")
    if not is_of_api and share is not None:
        raise click.UsageError("--share is of api-errors")
    if not (node or is_of_api or kind == "clear"):
        raise click.UsageError(f"{kind} wants --node")
    _, record = running_lab(name)
    share = (0.3 if share is None else share) if is_of_api else 0.0

    async def apply() -> None:
        async with open_api(record.server) as client:
            await apply_fault(client, Fault(kind, node, seconds, share))  # type: ignore[arg-type]

    try:
        asyncio.run(apply())
    except ApiError as error:
        fail(error.message)
    where = f" on {node}" if node else f" to {share:.0%} of requests" if is_of_api else " every fault"
    click.echo(f"{kind}{where}" + (f" for {seconds:g} s" if seconds else ""), err=True)
