"""What CoreDNS's ``kubernetes`` plugin answers, from Services and EndpointSlices (plugin/kubernetes/kubernetes.go).

- A Service with a ClusterIP answers with it, a headless one with its endpoints; an endpoint's own name exists for both.
- An endpoint counts unless its ``ready`` is false: terminating ones go at once, those of publishNotReadyAddresses stay.
- A slice without ports has A records and no SRV. ``pods insecure``: a name that spells an address is that address.

Pure. Left out: ExternalName, PTR, MX and TXT.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

ZONE = "cluster.local."
Key = tuple[str, str]
_SERVICE = "kubernetes.io/service-name"


@dataclass(frozen=True, slots=True)
class Record:
    """One resource record: owner with trailing dot, type, and its data as text."""

    owner: str
    kind: str
    data: str


@dataclass(frozen=True, slots=True)
class Told:
    """An answer. One without records is NODATA where the name ``exists``, else NXDOMAIN."""

    exists: bool
    answers: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()


@dataclass(frozen=True, slots=True)
class _Served:
    """An endpoint at one port; ``owner`` is its own name, or the Service's where it is a ClusterIP."""

    owner: str
    address: str
    port: int
    port_name: str = ""
    protocol: str = "TCP"


@dataclass(slots=True)
class Records:
    """A server's copy. ``put`` an object, or None for one that is gone."""

    services: dict[Key, dict[str, Any]] = field(default_factory=dict)
    slices: dict[Key, dict[Key, dict[str, Any]]] = field(default_factory=dict)
    _service_of: dict[Key, Key] = field(default_factory=dict)

    def put_service(self, key: Key, new: dict[str, Any] | None) -> None:
        self.services.pop(key, None)
        if new is not None:
            self.services[key] = new

    def put_slice(self, key: Key, new: dict[str, Any] | None) -> None:
        before = self._service_of.pop(key, None)
        if before is not None:
            del self.slices[before][key]
        if new is not None:
            service = (key[0], (new["metadata"].get("labels") or {}).get(_SERVICE, ""))
            self._service_of[key] = service
            self.slices.setdefault(service, {})[key] = new

    def look_up(self, domain: str, kind: str) -> Told | None:
        """The answer to a name with its trailing dot; None for a name of another zone."""
        domain = domain.lower()
        if domain == ZONE:
            return Told(True)
        if not domain.endswith(f".{ZONE}"):
            return None
        labels = domain.removesuffix(f".{ZONE}").split(".")
        if labels[-1] == "pod" and len(labels) == 3:
            return _spelled(domain, labels[0], kind)
        if labels[-1] != "svc" or len(labels) > 5:
            return Told(False)
        if len(labels) < 3:
            return Told(True)
        return _told(domain, kind, self._served((labels[-2], labels[-3]), labels[:-3]))

    def _served(self, key: Key, above: list[str]) -> list[_Served]:
        """Whatever stands under a Service's name, by what is put before it: an endpoint, or port and protocol."""
        service = self.services.get(key)
        if service is None:
            return []
        spec, own = service["spec"], f"{key[1]}.{key[0]}.svc.{ZONE}"
        if len(above) == 1 or spec.get("clusterIP") == "None":
            found = list(self._endpoints(key, own))
        else:
            addresses = spec.get("clusterIPs") or [spec["clusterIP"]]
            found = [
                _Served(own, address, port["port"], port.get("name", ""), port.get("protocol", "TCP"))
                for port in spec.get("ports") or ()
                for address in addresses
            ]
        if len(above) == 1:
            return [one for one in found if one.owner == f"{above[0]}.{own}"]
        if len(above) == 2:
            name, protocol = (one.removeprefix("_") for one in above)
            return [one for one in found if (one.port_name.lower(), one.protocol.lower()) == (name, protocol)]
        return found

    def _endpoints(self, key: Key, own: str) -> Iterable[_Served]:
        for slice_ in self.slices.get(key, {}).values():
            for endpoint in slice_.get("endpoints") or ():
                if (endpoint.get("conditions") or {}).get("ready") is False:
                    continue
                for address in endpoint["addresses"]:
                    owner = f"{endpoint.get('hostname') or _dashed(address)}.{own}"
                    for port in slice_.get("ports") or [{"port": -1}]:
                        name, protocol = port.get("name") or "", port.get("protocol") or "TCP"
                        yield _Served(owner, address, port.get("port") or -1, name, protocol)


def _told(domain: str, kind: str, found: list[_Served]) -> Told:
    if kind in ("A", "AAAA"):
        addresses = dict.fromkeys(one.address for one in found if _kind(one.address) == kind)
        return Told(bool(found), tuple(Record(domain, kind, address) for address in addresses))
    if kind != "SRV":
        return Told(bool(found))
    ported = [one for one in found if one.port > 0]
    weight = max(100 // max(len(ported), 1), 1)
    rows = dict.fromkeys(Record(domain, "SRV", f"0 {weight} {one.port} {one.owner}") for one in ported)
    extra = dict.fromkeys(Record(one.owner, _kind(one.address), one.address) for one in ported)
    return Told(bool(found), tuple(rows), tuple(extra))


def _spelled(domain: str, label: str, kind: str) -> Told:
    for text in (label.replace("-", "."), label.replace("-", ":")):
        try:
            address = str(ip_address(text))
        except ValueError:
            continue
        return Told(True, (Record(domain, kind, address),) if _kind(address) == kind else ())
    return Told(False)


def _kind(address: str) -> str:
    return "AAAA" if ":" in address else "A"


def _dashed(address: str) -> str:
    text = address.replace(".", "-").replace(":", "-")
    return f"{text}0" if text.endswith("-") else text
