"""Service tables: what one node's kernel forwards, and to whom. Pure.

A table is replaced as a whole and never changed: a commit is one assignment, as one nft transaction is. The
random generator and the clock are arguments.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

UNSET = msgspec.UNSET
Unset = msgspec.UnsetType

Address = tuple[str, int]
"""(IPv4 address, port)."""


class TableError(ValueError):
    """A table that cannot be committed; the message names the entry and what is wrong with it."""


class Routing(msgspec.Struct, frozen=True):
    """What a real kernel's rules say of a service port, beyond who answers on which address.

    ``cluster`` and ``local`` are the usable endpoints by traffic policy ("ip:port"); ``here`` those of them on this
    node. ``serving`` are all that serve, terminating or not, whatever the policy: who keeps its UDP flows.
    ``is_reachable``: an endpoint is usable on some node; without any, clients are rejected, else dropped.
    """

    cluster: tuple[str, ...]
    local: tuple[str, ...] = ()
    here: tuple[str, ...] = ()
    serving: tuple[str, ...] = ()
    is_reachable: bool = False
    is_internal_local: bool = False
    is_external_local: bool = False
    external_ips: tuple[str, ...] = ()
    load_balancer_ips: tuple[str, ...] = ()
    source_ranges: tuple[str, ...] = ()
    health_check_port: int = 0


class ServiceEntry(msgspec.Struct, frozen=True):
    """One port of one Service as a node forwards it.

    ``cluster_ip`` "" means no ClusterIP side (a NodePort whose endpoints differ from the ClusterIP's, as with
    ``externalTrafficPolicy: Local``); ``node_port`` 0 means no NodePort side. ``endpoints`` are "ip:port".
    ``affinity_seconds`` 0 means no session affinity. ``is_external_local``, on such a NodePort: clients on the node
    itself are sent as the ClusterIP's are (kube-proxy's short circuit for traffic from its own node); not in the JSON
    where it is not so. ``routing`` is there for a real kernel only (``proxy.rules.routed``).
    """

    namespace: str
    name: str
    port_name: str
    protocol: str
    cluster_ip: str
    port: int
    node_port: int
    endpoints: tuple[str, ...]
    affinity_seconds: int = 0
    is_external_local: bool | Unset = UNSET
    routing: Routing | Unset = UNSET

    @property
    def key(self) -> str:
        """ "namespace/name:port", as the journal names it."""
        return f"{self.namespace}/{self.name}:{self.port}"


class Table:
    """The entries of one generation, indexed by the address a client dials."""

    __slots__ = ("by_cluster_address", "by_node_port", "encoded", "entries", "inside", "targets")

    def __init__(self, entries: Iterable[ServiceEntry] = ()) -> None:
        self.entries = tuple(entries)
        self.by_cluster_address: dict[Address, ServiceEntry] = {}
        self.by_node_port: dict[int, ServiceEntry] = {}
        self.inside: dict[tuple[str, str], ServiceEntry] = {}
        """ClusterIP's entries by (key, port name): what a node's own clients of a Local NodePort go by."""
        self.targets: dict[str, Address] = {}
        for entry in self.entries:
            self._index(entry)
        self.encoded = msgspec.Raw(msgspec.json.encode(self.entries))
        """The entries as JSON: dumps are asked for far more often than tables change."""

    def _index(self, entry: ServiceEntry) -> None:
        if entry.protocol != "TCP":
            raise TableError(f"{entry.key}: protocol {entry.protocol} is not forwarded, only TCP")
        if entry.cluster_ip:
            _claim(self.by_cluster_address, (entry.cluster_ip, entry.port), entry)
            self.inside[entry.key, entry.port_name] = entry
        if entry.node_port:
            _claim(self.by_node_port, entry.node_port, entry)
        for endpoint in entry.endpoints:
            if endpoint not in self.targets:
                self.targets[endpoint] = split_address(endpoint)

    def at_node_port(self, port: int, *, is_own: bool) -> ServiceEntry | None:
        """The entry for a NodePort, asked by a client that ``is_own``: the node itself or a pod on it."""
        entry = self.by_node_port.get(port)
        if entry is not None and is_own and entry.is_external_local is True:
            return self.inside.get((entry.key, entry.port_name), entry)
        return entry


def _claim(index: dict[Any, ServiceEntry], address: Any, entry: ServiceEntry) -> None:
    other = index.setdefault(address, entry)
    if other is not entry:
        raise TableError(f"{entry.key} and {other.key} both claim {address}")


def decode_entries(raw: object) -> tuple[ServiceEntry, ...]:
    """Entries from decoded JSON. Raises ``TableError`` with the JSON path of what is wrong."""
    try:
        return msgspec.convert(raw, tuple[ServiceEntry, ...])
    except msgspec.ValidationError as error:
        raise TableError(f"services: {error}") from error


def split_address(text: str) -> Address:
    """``"10.0.0.1:80"`` -> ``("10.0.0.1", 80)``. Raises ``TableError``."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65_536:
        raise TableError(f"{text!r} is not ip:port")
    return host, int(port)


class Affinity:
    """Who was sent where, for entries with ``affinity_seconds``.

    As xt_recent and the nft affinity sets: a hit needs the endpoint still listed and the last new connection
    of that client at most ``affinity_seconds`` ago; every new connection renews it.
    """

    def __init__(self) -> None:
        self._last: dict[tuple[tuple[str, str], str], tuple[str, float]] = {}

    def choose(self, entry: ServiceEntry, client: str, now: float, rng: random.Random) -> str:
        """The endpoint for a new connection from ``client`` (an address). ``entry`` has endpoints."""
        key = ((entry.key, entry.cluster_ip), client)
        endpoint, at = self._last.get(key, ("", 0.0))
        if endpoint not in entry.endpoints or now - at > entry.affinity_seconds:
            endpoint = rng.choice(entry.endpoints)
        self._last[key] = (endpoint, now)
        return endpoint

    def forget(self, entries: Iterable[ServiceEntry]) -> None:
        """Drop what belongs to entries that are gone: their rules, and the lists with them, are."""
        kept = {(entry.key, entry.cluster_ip) for entry in entries if entry.affinity_seconds}
        self._last = {key: value for key, value in self._last.items() if key[0] in kept}


def node_of(client: str, addresses: Mapping[str, str], prefixes: Mapping[str, str]) -> str:
    """The node whose table decides for a client: its own, its pod network's, else one by hash of the address.

    ``addresses`` and ``prefixes`` map node address and pod prefix ("127.17.1.") to node name, in one fixed
    order. A hash rather than a draw: a client outside the cluster enters by one node, always the same.
    """
    node = addresses.get(client)
    if node is not None:
        return node
    node = prefixes.get(client[: client.rfind(".") + 1])
    if node is not None:
        return node
    names = sorted(addresses.values())
    return names[zlib.crc32(client.encode()) % len(names)]
