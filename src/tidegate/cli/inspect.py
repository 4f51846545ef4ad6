"""``tidegate inspect FILE``: where a saved dump of a data plane routes, and what in it nobody can tell."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO

import click

if TYPE_CHECKING:
    from tidegate.dataplane.facts import Facts, Unreadable
    from tidegate.model.endpoint import Endpoint

FORMATS = ("nft-json", "nft", "iptables-save", "ipvsadm", "conntrack")
BYTES_MAX = 256 * 1024 * 1024
"""10,000 Services of five endpoints are 30 MB of JSON."""
ROUTED = 1


class _EndpointType(click.ParamType[Any]):
    name = "IP:PORT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Endpoint:
        from tidegate.model.endpoint import Endpoint

        try:
            return Endpoint.parse(value) if isinstance(value, str) else value
        except ValueError:
            self.fail(f"{value!r} is not an endpoint, like 10.244.1.11:8080 or [fd00::11]:8080", param, ctx)


class _FenceType(click.ParamType[Any]):
    name = "IP=INSTALL"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        from tidegate.model.endpoint import canonical

        address, separator, install = value.partition("=") if isinstance(value, str) else ("", "", "")
        try:
            if not separator or not install:
                raise ValueError
            return canonical(address), install
        except ValueError:
            self.fail(f"{value!r} is not a ClusterIP and an install id, like 10.96.0.9=k3f9", param, ctx)


@click.command(short_help="Where a saved dump of a node's rules routes new connections.")
@click.argument("file", type=click.File("rb"))
@click.option("--format", "name", type=click.Choice(FORMATS), help="Instead of what the dump looks like.")
@click.option("--endpoint", type=_EndpointType(), help="Only what leads to it. Exit 0: nothing does, 1: a route does.")
@click.option("--fence", "fences", type=_FenceType(), multiple=True, help="A fence's ClusterIP, where no name is told.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.pass_context
def inspect(ctx: click.Context, /, file: BinaryIO, name: str | None, endpoint: Endpoint | None, **given: Any) -> None:
    """Where a saved dump of a node's rules routes new connections, and the fence it shows.

    FILE (`-`: standard input, may be gzipped) is the output of `nft -j list ruleset`, `nft list ruleset`,
    `iptables-save` or `ip6tables-save`, `ipvsadm -Ln` or `-Sn`, `conntrack -L` or /proc/net/nf_conntrack.
    Exit 4 when something on a path is not understood: then no route is no proof.

    \b
    nft -j list ruleset | tidegate inspect - --endpoint 10.244.1.11:8080
    """
    from tidegate.cli.main import DONE, UNVERIFIED
    from tidegate.dataplane import dumps
    from tidegate.dataplane.facts import Facts, Unreadable
    from tidegate.dataplane.frontends import Asking

    asked = None if endpoint is None else _of_any_protocol(endpoint)
    asking = Asking(endpoints=asked, fences=dict(given["fences"]))
    text = _text(file)
    facts = Facts("", "", unreadable=(text,)) if isinstance(text, Unreadable) else dumps.read(text, name, asking=asking)
    document = document_of(facts, asked)
    click.echo(json.dumps(document, indent=2) if given["output"] == "json" else "\n".join(lines(document, endpoint)))
    if endpoint is not None and (document["routes"] or document["opening"]):
        ctx.exit(ROUTED)
    ctx.exit(UNVERIFIED if facts.unreadable else DONE)


def _text(file: BinaryIO) -> str | Unreadable:
    """The dump, unpacked. What is not UTF-8 stays visible, and reads as nothing known."""
    from tidegate.cli.main import USAGE, fail
    from tidegate.dataplane import Unreadable

    content = file.read(BYTES_MAX + 1)
    if content[:2] == b"\x1f\x8b":
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as packed:
                content = packed.read(BYTES_MAX + 1)
        except (OSError, EOFError, zlib.error) as error:
            return Unreadable(f"not gzip, or cut short: {error}")
    if len(content) > BYTES_MAX:
        fail(f"more than {BYTES_MAX >> 20} MiB: dump one table (`nft -j list table ip kube-proxy`)", USAGE)
    return content.decode(errors="backslashreplace")


def _of_any_protocol(endpoint: Endpoint) -> tuple[Endpoint, ...]:
    """``IP:PORT`` names no protocol: whatever leads there counts."""
    return tuple(replace(endpoint, protocol=protocol) for protocol in ("TCP", "UDP", "SCTP"))


def document_of(facts: Facts, asked: tuple[Endpoint, ...] | None = None) -> dict[str, Any]:
    """What ``-o json`` prints; with endpoints ``asked`` about, only what leads to them."""
    routes = facts.routes if asked is None else dict.fromkeys(to for one in asked for to in facts.routes_to(one))
    if asked is None:
        opening = [one for one in facts.tracked if one.is_opening]
    else:
        opening = [entry for one in asked for entry in facts.opening_to(one)]
    return {
        "routes": [
            {
                "via": route.via, "service": route.service, "address": route.address, "port": route.port,
                "protocol": route.protocol, "endpoints": [str(to) for to in route.endpoints],
            }
            for route in routes
        ],
        "fence": {epoch.install: epoch.number for epoch in _least(facts)},
        "opening": [
            {
                "protocol": one.protocol, "state": one.state, "source": str(one.source),
                "destination": str(one.destination), "endpoint": str(one.endpoint),
            }
            for one in opening
        ],
        "unreadable": [str(one) for one in facts.unreadable],
    }  # fmt: skip


def _least(facts: Facts) -> list[Any]:
    """One epoch of each install: the earliest, if its families differ."""
    from tidegate.model.epoch import earliest_by_install

    return list(earliest_by_install(facts.fence))


def lines(document: dict[str, Any], endpoint: Endpoint | None = None) -> list[str]:
    """The document as text."""
    found = [f"{_frontend(route)} -> {', '.join(route['endpoints']) or 'no endpoint'}" for route in document["routes"]]
    found += [
        f"{one['protocol']} {one['state']} {one['source']} -> {one['destination']} -> {one['endpoint']}"
        for one in document["opening"]
    ]
    if not found and not document["unreadable"]:
        found = ["no route" if endpoint is None else f"no route to {endpoint}"]
    found += [f"fence {install}/{number}" for install, number in document["fence"].items()]
    return found + [f"unreadable: {one}" for one in document["unreadable"]]


def _frontend(route: dict[str, Any]) -> str:
    address = f"[{route['address']}]" if ":" in route["address"] else route["address"] or "*"
    service = f" {route['service']}" if route["service"] else ""
    return f"{route['via']} {address}:{route['port'] or '*'}/{route['protocol']}{service}"
