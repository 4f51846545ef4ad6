"""Envoy's own account of what it routes to: ``/clusters``, ``/config_dump``, ``/runtime`` of one process (seen: 1.40).

Traps this file knows of:

- A host that EDS took away is gone from ``/clusters`` while its open connections go on: nothing here tells of those,
  the pod's sockets do. What this file shows is only where new requests may go.
- Where a cluster has active health checks, a host that EDS took away stays and is used while its checks pass
  (``pending_dynamic_removal``): a route still.
- DRAINING, UNHEALTHY and TIMEOUT of EDS are no route only where Envoy never panics: below ``healthy_panic_threshold``
  (50 % unless set; ``upstream.healthy_panic_threshold`` of the runtime rules) it balances over all hosts, those too.
  Seen: with both of two hosts DRAINING, both went on being used. Sticky sessions reach them where
  ``override_host_status`` says so.
- A host that failed a health check or was ejected as an outlier comes back by itself: a route.
- Each cluster is applied by itself, so a fence says something only about clusters fed from the same place: it counts
  where every source of hosts shows it. Files of one directory are one source: Envoy reads all of them at any rename in
  it, so whoever writes them has to rename the fence's last.
- Protobuf leaves zeros out: ``"healthy_panic_threshold": {}`` is 0, panic switched off.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from tidegate.dataplane.facts import Facts, Route, Unreadable
from tidegate.model.endpoint import Endpoint, canonical
from tidegate.model.epoch import Epoch
from tidegate.model.names import fence_name

CLUSTERS, CONFIG, RUNTIME = "/clusters?format=json", "/config_dump?include_eds", "/runtime?format=json"
PATHS = (RUNTIME, CONFIG, CLUSTERS)
"""What is read, in this order: hosts last, so that they are no older than what is said about their clusters."""
PANIC_PERCENT = 50.0
"""Envoy's default for ``healthy_panic_threshold``."""
_PANIC_KEY = "upstream.healthy_panic_threshold"
_RESTING = frozenset({"DRAINING", "UNHEALTHY", "TIMEOUT"})
_USED = frozenset({"HEALTHY", "UNKNOWN", "DEGRADED"})
_TAKING = frozenset({"HEALTHY", "UNKNOWN"})
_BY_NAME = frozenset({"STRICT_DNS", "LOGICAL_DNS"})
_COMPOSED = frozenset({"envoy.clusters.aggregate"})
"""Clusters that only point to other clusters, which are listed themselves."""
_OBEDIENT = frozenset(f"envoy.extensions.load_balancing_policies.{one}" for one in (
    "round_robin.v3.RoundRobin", "least_request.v3.LeastRequest", "random.v3.Random", "ring_hash.v3.RingHash",
    "maglev.v3.Maglev",
))  # fmt: skip
"""Policies that were seen to take panic from ``common_lb_config`` too: 503 with all hosts DRAINING and panic off."""
_FIXED = "bootstrap"
Shape = TypeVar("Shape")


class _Health(msgspec.Struct, forbid_unknown_fields=True):
    """``HostHealthStatus``, all of it: a flag that nobody here knows makes the dump unreadable."""

    eds_health_status: str = "UNKNOWN"
    failed_active_health_check: bool = False
    failed_outlier_check: bool = False
    failed_active_degraded_check: bool = False
    pending_dynamic_removal: bool = False
    pending_active_hc: bool = False
    excluded_via_immediate_hc_fail: bool = False
    active_hc_timeout: bool = False


class _Host(msgspec.Struct):
    address: dict[str, Any]
    health_status: _Health


class _Status(msgspec.Struct):
    name: str
    host_statuses: list[_Host] = []


class _Statuses(msgspec.Struct):
    cluster_statuses: list[_Status]


class _Percent(msgspec.Struct):
    value: float = 0.0


class _Override(msgspec.Struct):
    statuses: list[str] = []


class _Balancing(msgspec.Struct):
    healthy_panic_threshold: _Percent | None = None
    override_host_status: _Override | None = None


class _Eds(msgspec.Struct):
    eds_config: dict[str, Any]


class _Custom(msgspec.Struct):
    name: str


class _Typed(msgspec.Struct):
    type: str = msgspec.field(name="@type", default="")


class _Extension(msgspec.Struct):
    typed_config: _Typed = msgspec.field(default_factory=_Typed)


class _Policy(msgspec.Struct):
    typed_extension_config: _Extension = msgspec.field(default_factory=_Extension)

    @property
    def is_obedient(self) -> bool:
        return self.typed_extension_config.typed_config.type.rpartition("/")[2] in _OBEDIENT


class _Policies(msgspec.Struct):
    policies: list[_Policy] = []


class _Cluster(msgspec.Struct):
    name: str
    type: str = ""
    cluster_type: _Custom | None = None
    eds_cluster_config: _Eds | None = None
    common_lb_config: _Balancing | None = None
    load_balancing_policy: _Policies | None = None


class _Known(msgspec.Struct):
    cluster: _Cluster


class _ClustersDump(msgspec.Struct):
    static_clusters: list[_Known] = []
    dynamic_active_clusters: list[_Known] = []
    dynamic_warming_clusters: list[_Known] = []


class _Dial(msgspec.Struct):
    additional_addresses: list[dict[str, Any]] = []


class _LbEndpoint(msgspec.Struct):
    endpoint: _Dial | None = None


class _Locality(msgspec.Struct):
    lb_endpoints: list[_LbEndpoint] = []


class _Assignment(msgspec.Struct):
    cluster_name: str
    endpoints: list[_Locality] = []


class _Assigned(msgspec.Struct):
    endpoint_config: _Assignment


class _EndpointsDump(msgspec.Struct):
    static_endpoint_configs: list[_Assigned] = []
    dynamic_endpoint_configs: list[_Assigned] = []


class _Section(msgspec.Struct):
    type: str = msgspec.field(name="@type")


class _Dump(msgspec.Struct):
    configs: list[msgspec.Raw]


class _Entry(msgspec.Struct):
    final_value: str = ""


class _Runtime(msgspec.Struct):
    entries: dict[str, _Entry]


def parse(
    bodies: dict[str, str],
    install: str = "main",
    *,
    source: str = "",
    ignore_names: bool = False,
    ignore_clusters: Iterable[str] = (),
) -> Facts:
    """Facts of one Envoy from its answers to ``PATHS``; each must be there.

    ``ignore_names``: clusters found by DNS are known to lead to no pods. ``ignore_clusters``: so are these, by name.
    """
    found = _Found(install, ignore_names, frozenset(ignore_clusters))
    try:
        found.read(bodies)
    except ValueError as error:
        found.problems.append(Unreadable(str(error)))
    return Facts(
        source, "envoy clusters", routes=tuple(found.routes), fence=found.fence(), unreadable=tuple(found.problems)
    )


def _decoded(bodies: dict[str, str], path: str, shape: type[Shape]) -> Shape:
    """Raises ``ValueError`` that names the path."""
    if path not in bodies:
        raise ValueError(f"{path} was not read")
    try:
        return msgspec.json.decode(bodies[path].encode(), type=shape)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise ValueError(f"{path} is not understood: {error}") from error


class _Found:
    """Collects what the answers say."""

    def __init__(self, install: str, ignore_names: bool, ignored: frozenset[str]) -> None:
        self.routes: list[Route] = []
        self.problems: list[Unreadable] = []
        self._install = install
        self._ignore_names = ignore_names
        self._ignored = ignored
        self._sources: dict[str, None] = {}
        self._epochs: dict[str, list[Epoch]] = {}
        self._panic: float | None = None
        # Istio's "outbound|1||NAME.tidegate-system.svc.cluster.local", Contour's "tidegate-system/NAME/fence/4b9f",
        # Envoy Gateway's "httproute/NAMESPACE/NAME/rule/0".
        self._fence_name = re.compile(rf"(^|.*[^A-Za-z0-9-]){re.escape(fence_name(install))}([^A-Za-z0-9-]|$)")

    def fence(self) -> tuple[Epoch, ...]:
        """The epochs of every source of hosts; none where one of them shows no fence."""
        if not all(source in self._epochs for source in self._sources):
            return ()
        return tuple(epoch for epochs in self._epochs.values() for epoch in epochs)

    def read(self, bodies: dict[str, str]) -> None:
        """Raises ``ValueError`` for what are no such answers."""
        entry = _decoded(bodies, RUNTIME, _Runtime).entries.get(_PANIC_KEY)
        if entry is not None:
            self._panic = float(entry.final_value)
        dump, more = self._sections(bodies)
        statuses = {one.name: one for one in _decoded(bodies, CLUSTERS, _Statuses).cluster_statuses}
        for warming in dump.dynamic_warming_clusters:
            if warming.cluster.name not in self._ignored:
                self._trouble(warming.cluster.name, "it is warming: what it will use is not to be seen yet")
        known = {one.cluster.name: (one.cluster, False) for one in dump.static_clusters}
        known |= {one.cluster.name: (one.cluster, True) for one in dump.dynamic_active_clusters}
        for name in sorted({*known, *statuses} - self._ignored):
            if name not in known or name not in statuses:
                self._trouble(name, "it came or went between two answers")
                continue
            cluster, is_dynamic = known[name]
            source = self._source(cluster, is_dynamic)
            if source != _FIXED:
                self._sources.setdefault(source)
            if self._fence_name.match(name):
                self._add_fence(source, statuses[name])
            else:
                self._add_routes(cluster, statuses[name], more.get(name, ()))

    def _sections(self, bodies: dict[str, str]) -> tuple[_ClustersDump, dict[str, list[dict[str, Any]]]]:
        """The clusters, and by their names the further addresses of their hosts. Raises ``ValueError``."""
        clusters: list[_ClustersDump] = []
        further: dict[str, list[dict[str, Any]]] | None = None
        try:
            for raw in _decoded(bodies, CONFIG, _Dump).configs:
                kind = msgspec.json.decode(raw, type=_Section).type.rpartition(".")[2]
                if kind == "ClustersConfigDump":
                    clusters.append(msgspec.json.decode(raw, type=_ClustersDump))
                elif kind == "EndpointsConfigDump":
                    found = msgspec.json.decode(raw, type=_EndpointsDump)
                    further = _further([*found.static_endpoint_configs, *found.dynamic_endpoint_configs])
        except msgspec.DecodeError as error:
            raise ValueError(f"{CONFIG} is not understood: {error}") from error
        if len(clusters) != 1 or further is None:
            raise ValueError(f"{CONFIG} has no clusters, or no endpoints (include_eds)")
        return clusters[0], further

    def _trouble(self, name: str, why: str) -> None:
        self.problems.append(Unreadable(why, f"envoy cluster {name}"))

    def _source(self, cluster: _Cluster, is_dynamic: bool) -> str:
        """Where a cluster's hosts come from, as a name that is the same for those that come together."""
        kind = cluster.type or ("" if cluster.cluster_type is not None else "STATIC")
        if kind == "EDS":
            return _named(cluster.eds_cluster_config.eds_config if cluster.eds_cluster_config is not None else {})
        if kind == "STATIC":
            return "cds" if is_dynamic else _FIXED
        if kind in _BY_NAME:
            if not self._ignore_names:
                self._trouble(cluster.name, "its hosts are found by DNS, which has no fence here")
        elif kind:
            self._trouble(cluster.name, f"of type {kind}: it leads wherever it is told")
        elif cluster.cluster_type is not None and cluster.cluster_type.name not in _COMPOSED:
            self._trouble(cluster.name, f"of type {cluster.cluster_type.name!r}, which nobody here knows")
        return _FIXED

    def _add_routes(self, cluster: _Cluster, status: _Status, further: Iterable[dict[str, Any]]) -> None:
        by_reason: dict[tuple[str, str, str], list[Endpoint]] = {}
        for host in status.host_statuses:
            endpoint = self._endpoint(host.address, cluster.name)
            why = self._use(cluster, host.health_status)
            if endpoint is not None and why is not None:
                by_reason.setdefault((endpoint.protocol, why, _withheld(host.health_status)), []).append(endpoint)
        for address in further:  # of happy eyeballs: dialled when the first does not answer
            endpoint = self._endpoint(address, cluster.name)
            if endpoint is not None:
                by_reason.setdefault((endpoint.protocol, " (further address)", ""), []).append(endpoint)
        for (protocol, why, withheld), to in by_reason.items():
            self.routes.append(Route(f"envoy {cluster.name}{why}", "", 0, protocol, tuple(to), withheld=withheld))

    def _use(self, cluster: _Cluster, health: _Health) -> str | None:
        """None where no new request goes to the host, else why one may ("" for no special reason)."""
        said = health.eds_health_status
        if said in _USED:
            return " (taken away, but its health check passes)" if health.pending_dynamic_removal else ""
        if said not in _RESTING:
            self._trouble(cluster.name, f"health {said!r} is not known")
            return None
        balancing = cluster.common_lb_config or _Balancing()
        if balancing.override_host_status is not None and said in balancing.override_host_status.statuses:
            return f" ({said}, but sticky requests go to it)"
        policies = cluster.load_balancing_policy.policies if cluster.load_balancing_policy is not None else None
        is_obedient = policies is None or (bool(policies) and all(one.is_obedient for one in policies))
        if not is_obedient or cluster.cluster_type is not None:
            return f" ({said}, but how its policy panics is not known)"
        own = balancing.healthy_panic_threshold
        percent = self._panic if self._panic is not None else own.value if own is not None else PANIC_PERCENT
        return f" ({said}, but used in panic, below {percent:g} % healthy)" if percent else None

    def _endpoint(self, address: dict[str, Any], name: str) -> Endpoint | None:
        """None for what leads to no pod, and for what is not understood, which is noted."""
        if set(address) == {"pipe"} or set(address) == {"envoy_internal_address"}:
            return None
        socket = address.get("socket_address")
        try:
            if not isinstance(socket, dict):
                raise ValueError(f"{address} is no address")
            port, protocol = socket.get("port_value"), socket.get("protocol", "TCP")
            if not isinstance(port, int) or not 0 < port < 65536 or protocol not in ("TCP", "UDP"):
                raise ValueError(f"{socket} is no address and port")
            return Endpoint(canonical(str(socket.get("address"))), port, protocol)
        except ValueError as error:
            self._trouble(name, str(error))
            return None

    def _add_fence(self, source: str, status: _Status) -> None:
        for host in status.host_statuses:
            endpoint = self._endpoint(host.address, status.name)
            try:
                if endpoint is not None:
                    self._epochs.setdefault(source, []).append(Epoch.of_endpoint(self._install, endpoint))
            except ValueError as error:
                self._trouble(status.name, str(error))


def _named(config: dict[str, Any]) -> str:
    """A name for an EDS source: alike for what comes over one stream, or from files of one directory."""
    for key in ("ads", "self"):
        if key in config:
            return key
    if "path_config_source" in config:
        files = config["path_config_source"] or {}
        directory = (files.get("watched_directory") or {}).get("path")
        return f"files in {directory}" if directory else f"file {files.get('path')}"
    stream = config.get("api_config_source")
    return msgspec.json.encode(stream or config, order="sorted").decode()


def _withheld(health: _Health) -> str:
    """Why a host takes no share of new requests while others do; "" where it does. UNKNOWN is healthy to Envoy: its EDS
    server said nothing."""
    if health.eds_health_status not in _TAKING:
        return health.eds_health_status
    if health.pending_dynamic_removal:
        return "taken away by EDS"
    failed = (name for name in health.__struct_fields__ if name != "eds_health_status" and getattr(health, name))
    return next(failed, "")


def _further(assigned: Iterable[_Assigned]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for one in assigned:
        for locality in one.endpoint_config.endpoints:
            for lb in locality.lb_endpoints:
                wrapped = (lb.endpoint or _Dial()).additional_addresses
                addresses = [further.get("address") or {} for further in wrapped]
                found.setdefault(one.endpoint_config.cluster_name, []).extend(addresses)
    return found
