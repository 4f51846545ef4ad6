"""A status as text: every line a fact, its source and its reason."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tidegate.cli.table import table

Document = dict[str, Any]
Holds = dict[tuple[str, str], Document]
"""Held pods by (namespace, name)."""

_CLIENTS_MAX = 5
_OTHERS_MAX = 3
"""So many Services that do not select a pod are all named; of more, those that ask for a label it has."""


def lines(document: Document, wide: bool = False, why: bool = False) -> list[str]:
    """The document as text. ``wide`` adds columns, ``why`` every reason."""
    if document["kind"] == "orphans":
        return _orphans(document)
    if document["kind"] == "cluster":
        return _cluster(document) + _ends(document)
    found = [_title(document)]
    held = {(hold["namespace"], hold["name"]): hold for hold in document["held"]}
    if document.get("pod"):
        found += _pod(document["pod"], held, why)
    for workload in document["workloads"]:
        found += _workload(workload)
    for service in document["services"]:
        found += _service(service, document, wide)
    found += _pods(document.get("pods") or (), held, why)
    found += _nodes(document, wide)
    return found + _ends(document)


def names(document: Document) -> list[str]:
    """``KIND/NAME`` of what the document is about, in kubectl's spelling."""
    groups = {"Deployment": "deployment.apps", "ReplicaSet": "replicaset.apps", "StatefulSet": "statefulset.apps"}
    groups |= {"DaemonSet": "daemonset.apps", "Job": "job.batch"}
    if document["kind"] == "orphans":
        return [f"pod/{one['name']}" for one in document["held"]]
    found = [f"service/{one['name']}" for one in document["services"]]
    found += [f"{groups[one['kind']]}/{one['name']}" for one in document["workloads"]]
    pods = [document["pod"]] if document.get("pod") else document.get("pods") or []
    return found + [f"pod/{one['name']}" for one in pods]


def _title(document: Document) -> str:
    if document["kind"] == "namespace":
        return f"namespace {document['namespace']}"
    return f"{document['kind']}/{document['name']} in {document['namespace']}"


# --- Services ---


def _service(service: Document, document: Document, wide: bool) -> list[str]:
    addresses = ", ".join(service["addresses"])
    selects = f"selects {service['selector']}" if service["selector"] is not None else "no selector"
    words = [f"Service {service['namespace']}/{service['name']}", service["type"], addresses, selects]
    found = ["  ".join(word for word in words if word)]
    found += [f"  note: {reason}" for reason in service["reasons"]]
    live = {entry["address"]: entry for entry in document["connections"]}
    header = ("ADDRESS", "POD", "NODE", "ZONE" if wide else "", "VERSION", "REVISION", "STATE", "LIVE", "ROUTED", "WHY")
    rows = [_endpoint(entry, live.get(entry["address"]), wide) for entry in service["endpoints"]]
    found += table(rows, header, "  ") or ["  no endpoint" + (" of this pod" if document.get("pod") else "")]
    found += [f"  {line}" for line in _senders(service)]
    return found + [f"  warning: {_warned(one)}" for one in service["warnings"]]


def _endpoint(entry: Document, live: Document | None, wide: bool) -> tuple[str, ...]:
    words = [word for word in ("ready", "serving", "terminating") if entry[word]]
    counted = "" if live is None else "?" if live["problem"] else str(live["live"])
    return (
        entry["address"],
        entry["pod"] or "-",
        entry["node"] or "-",
        (entry["zone"] or "-") if wide else "",
        entry["version"],
        entry["revision"],
        ",".join(words) or "-",
        counted,
        "routed" if entry["routed"] else "not routed",
        entry["why"],
    )


def _senders(service: Document) -> list[str]:
    """Where the nodes send this Service's new connections; nodes that say the same share a line."""
    if service["type"] in ("headless", "ExternalName"):
        return []
    said: dict[str, list[str]] = {}
    for node in service["nodes"]:
        said.setdefault(_sends(node), []).append(node["node"])
    return [f"{_few(nodes)}: {what}" for what, nodes in said.items()]


def _sends(node: Document) -> str:
    if node["problem"]:
        return str(node["problem"])
    to = [f"{_called(one)} ({_count(one['endpoints'], 'endpoint')})" for one in node["revisions"]]
    return f"routes to {', '.join(to)}" if to else "routes nowhere"


def _called(one: Document) -> str:
    return " ".join(word for word in (one["version"], one["revision"]) if word) or "an unknown pod"


def _cluster(document: Document) -> list[str]:
    rows = []
    for service in document["services"]:
        entries = service["endpoints"]
        versions = sorted({_called(entry) for entry in entries if entry["routed"] and entry["pod"]})
        late = [one for one in service["nodes"] if one["problem"]]
        rows.append(
            (
                service["namespace"], service["name"], service["type"],
                f"{sum(entry['ready'] for entry in entries)}/{len(entries)}", ", ".join(versions),
                f"{len(service['nodes']) - len(late)}/{len(service['nodes'])}",
                ",".join(one["name"] for one in service["warnings"]),
            )
        )  # fmt: skip
    header = ("NAMESPACE", "SERVICE", "TYPE", "READY", "ROUTES TO", "NODES", "WARNINGS")
    return table(rows, header) or ["no Service"]


# --- pods and workloads ---


def _pod(pod: Document, held: Holds, why: bool) -> list[str]:
    state = "terminating" if pod["terminating"] else "ready" if pod["ready"] else "not ready"
    gate = "gated" if pod["gated"] else f"not gated: {pod['ungated']}"
    found = [f"  on {pod['node'] or 'no node'}, {state}, {gate}"]
    if pod["owner"]:
        owned = "released by" if pod["released"] else "of"
        found.append(f"  {owned} {pod['owner']}, {_called(pod)}")
    found += [f"  {line}" for line in _selected(pod, why)]
    found += [f"  note: {one}" for one in pod["foreign"]]
    found += [f"  {line}" for line in _hold(held.get((pod["namespace"], pod["name"])))]
    if pod["result"]:
        found.append(f"  result: {pod['result']}")
    return found + [f"  note: {one}" for one in pod["suspected"]]


def _selected(pod: Document, why: bool) -> list[str]:
    """Who selects it; of those that do not, the ones that ask for a label it has, and what they miss first."""
    if why:
        return list(pod["selected"])
    found = [f"{one['service']} selects it" for one in pod["services"] if one["selects"]]
    others = [one for one in pod["services"] if not one["selects"]]
    close = [one for one in others if one["close"]] if len(others) > _OTHERS_MAX else others
    found += [f"{one['service']} does not: {one['missing'][0]}" for one in close]
    far = len(others) - len(close)
    if far:
        found.append(f"{_count(far, 'other Service')} {'shares' if far == 1 else 'share'} no label with it (--why)")
    return found or ["no Service selects it"]


def _hold(hold: Document | None) -> list[str]:
    """Who holds a pod, and what to do next; nothing for one that nobody holds."""
    if hold is None:
        return []
    begun = "drained" if hold["at_work"] else "drain begun"
    verb = {"cut": "cut", "isolate": "isolated", "drain": begun}.get(hold["verb"], hold["verb"])
    words = [f"{'being ' if hold['at_work'] else ''}{verb}"]
    words += [f"by {hold['by']}"] if hold["by"] else []
    words += [f"since {hold['since']}"] if hold["since"] else []
    words += [f"until {hold['until']}{' (over)' if hold['expired'] else ''}"] if hold["until"] else []
    found = [f"drain: {hold['state'].lower()}"] if hold["state"] else []
    found.append(f"held: {' '.join(words)}" + (f": {hold['reason']}" if hold["reason"] else ""))
    found += [f"note: forced, {hold['forced']}"] if hold["forced"] else []
    found += [f"note: {hold['problem']}"] if hold["problem"] else []
    found += [f"warning: {_warned(one)}" for one in hold["warnings"]]
    return found if hold["at_work"] else [*found, f"next: {' or '.join(hold['next'])}"]


def _pods(pods: Iterable[Document], held: Holds, why: bool) -> list[str]:
    """The pods of a workload, of a selector, or those of a namespace that no Service selects."""
    found: list[str] = []
    for pod in pods:
        where = pod["node"] or "no node"
        state = "terminating" if pod["terminating"] else "ready" if pod["ready"] else pod["phase"].lower() or "unknown"
        found.append(f"Pod {pod['namespace']}/{pod['name']}  {_called(pod)}  on {where}  {state}")
        found += [f"  {line}" for line in _selected(pod, why)]
        if pod["routed_by"] and not any(one["selects"] for one in pod["services"]):
            found.append(f"  still routed by {_few(pod['routed_by'])}")
        found += [f"  {line}" for line in _hold(held.get((pod["namespace"], pod["name"])))]
    return found


def _workload(workload: Document) -> list[str]:
    title = f"{workload['kind']} {workload['namespace']}/{workload['name']}"
    found = [f"{title}  {workload['ready']}/{workload['desired']} ready  selects {workload['selector'] or '-'}"]
    for one in workload["revisions"]:
        found.append(f"  {_called(one)}: {_count(one['pods'], 'pod')}, {one['ready']} ready")
    header = ("REPLICASET", "REVISION", "DESIRED", "READY")
    rows = [
        (one["name"], str(one["revision"]), str(one["desired"]), str(one["ready"])) for one in workload["replicasets"]
    ]
    found += table(rows, header, "  ")
    for each in workload["without_gate"]:
        have = "pod has" if len(each["pods"]) == 1 else "pods have"
        found.append(f"  {len(each['pods'])} {have} no gate ({_few(each['pods'], 'pods')}): {each['reason']}")
        found += [f"    next: {each['next']}"] if each["next"] else []
    if workload["released"]:
        found.append(f"  released: {', '.join(workload['released'])}")
    return found


# --- nodes, drains, connections ---


def _nodes(document: Document, wide: bool) -> list[str]:
    found: list[str] = []
    if document["nodes"] and (wide or document["kind"] != "namespace"):
        found += ["Nodes", *table([_node(node) for node in document["nodes"]], (), "  ")]
    for drain in document["drains"]:
        found += _drain(drain)
    if document["routers"]:
        found += ["Others who route", *(line for router in document["routers"] for line in _router(router))]
    live = [entry for entry in document["connections"] if entry["live"] or entry["problem"]]
    if live:
        found += ["Connections", *table([_connection(entry) for entry in live], (), "  ")]
    return found


def _router(router: Document) -> list[str]:
    """Who routes by a Service beside the nodes, and whether drains ask them."""
    known = [f"  asked: {one}" for one in router["known"]]
    return known + [f"  suspected, no observer: {one}" for one in router["suspected"]]


def _node(node: Document) -> tuple[str, ...]:
    if node["problem"]:
        return node["node"], "-", node["problem"]
    fence = ", ".join(f"fence {number}" for _, number in sorted(node["fence"].items())) or "no fence"
    routed = sorted({endpoint for route in node["routes"] for endpoint in route["endpoints"]})
    return node["node"], fence, f"routes to {', '.join(routed)}" if routed else "no route"


def _drain(drain: Document) -> list[str]:
    what = f"Drain of {drain['pod']} ({drain['mode']} mode, {drain['seconds']:.1f} s)"
    if drain["source"] != "clean":
        return [what, *(f"  waiting for {reason}" for reason in drain["reasons"])]
    if not drain["epoch"]:
        return [what, "  waiting for the fence to be written"]
    late = [f"  straggler {one['node']}: {one['verdict']}, {one['detail']}" for one in drain["stragglers"]]
    others = [f"  excepted {one['node']}: {one['detail']}" for one in drain.get("excepted", ())]
    others += [f"  asked: {one}" for one in drain.get("known", ())]
    others += [f"  suspected: {one}" for one in drain.get("suspected", ())]
    return [f"{what}, epoch {drain['epoch']}", *(late or ["  every observer has let go"]), *others]


def _connection(entry: Document) -> tuple[str, ...]:
    more = " ..." if len(entry["clients"]) > _CLIENTS_MAX else ""
    clients = ", ".join(entry["clients"][:_CLIENTS_MAX]) + more
    return entry["address"], entry["pod"] or "-", entry["problem"] or f"{entry['live']} live from {clients}"


# --- held pods ---


def _orphans(document: Document) -> list[str]:
    where = f"namespace {document['namespace']}" if document["namespace"] else "any namespace"
    found = [] if document["held"] else [f"no held pod without somebody at work on it in {where}"]
    for hold in document["held"]:
        result = f", result {hold['result']}" if hold["result"] else ""
        found.append(f"pod/{hold['name']} in {hold['namespace']}{result}")
        found += [f"  {line}" for line in _hold(hold)]
    return found + [f"note: {problem}" for problem in document["problems"]]


def _ends(document: Document) -> list[str]:
    found = []
    told = [document["pod"]] if document.get("pod") else document.get("pods") or []
    shown = {(pod["namespace"], pod["name"]) for pod in told}
    others = [hold for hold in document["held"] if (hold["namespace"], hold["name"]) not in shown]
    if others:
        found.append("Held pods")
    for hold in others:
        found.append(f"  pod/{hold['name']} in {hold['namespace']}")
        found += [f"    {line}" for line in _hold(hold)]
    return found + [f"note: {problem}" for problem in document["problems"]]


def _warned(one: Document) -> str:
    return f"{one['sentence']}; {one['next']}" if one["next"] else str(one["sentence"])


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _few(names: list[str], what: str = "nodes") -> str:
    return ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:5])} and {len(names) - 5} more {what}"
