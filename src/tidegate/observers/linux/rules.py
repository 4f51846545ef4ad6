"""Every translating rule of this network namespace, of every backend, as one consistent reading.

nftables, with the rules that iptables-nft keeps there, is followed (``following.py``); iptables-legacy and ipvs are
beside. Were the rules of nftables changed in between, all of it is read again: a route that moved from one backend to
the other must not be missed in both.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from tidegate.dataplane import iptables
from tidegate.dataplane.facts import Facts, Route, Unreadable
from tidegate.dataplane.frontends import Asking
from tidegate.model.endpoint import Endpoint
from tidegate.observers.linux.commands import CommandFailed, output
from tidegate.observers.linux.following import Followed, NotRead

TRIES = 5
_LEGACY_NAMES = {4: "/proc/net/ip_tables_names", 6: "/proc/net/ip6_tables_names"}
_PREFIXES = {4: "iptables", 6: "ip6tables"}
_IPVS = "/proc/net/ip_vs"
_IPVS_HEADER_LINES = 3


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of the rules. ``address`` is the node's: where a redirect leads."""

    endpoints: tuple[Endpoint, ...] | None
    fences: Mapping[str, str]
    address: str = ""


@dataclass(frozen=True, slots=True)
class Beside:
    """The rules that nftables does not have: what iptables-legacy-save printed, and how many servers ipvs has."""

    saves: tuple[tuple[int, str, bytes], ...] = ()
    ipvs: int = 0


def read(followed: Followed, wanted: Wanted) -> tuple[Facts, int, Beside]:
    """What the rules of all backends lead to, the generation of nftables that shows it, and what is beside. Raises
    ``NotRead``."""
    asking = Asking(wanted.endpoints, wanted.fences, (wanted.address,) if wanted.address else (), frozenset(["legacy"]))
    try:
        for _ in range(TRIES):
            _, before = followed.catch_up()
            beside = _beside()
            found = followed.facts(asking)
            if not beside.saves or found is None or found[1] == before:
                return _together(found, beside, followed, asking)
    except (CommandFailed, OSError) as error:
        raise NotRead(str(error)) from error
    raise NotRead(f"the rules changed during each of {TRIES} readings")


def _together(
    found: tuple[Facts, int] | None, beside: Beside, followed: Followed, asking: Asking
) -> tuple[Facts, int, Beside]:
    parts = [found[0]] if found else []
    kinds, served = followed.kinds, set(followed.served)
    for version, name, text in beside.saves:
        parts.append(iptables.parse(text.decode(errors="replace"), name, asking))
        served.add(version)
        kinds.append("iptables-legacy")
    unreadable = [one for part in parts for one in part.unreadable]
    if beside.ipvs:
        why = f"ipvs forwards for {beside.ipvs} virtual servers and real servers, which is not read yet"
        unreadable.append(Unreadable(why, _IPVS))
    routes = tuple(route for part in parts for route in part.routes)
    fence = tuple(epoch for part in parts for epoch in part.fence)
    if not unreadable:
        unreadable = _unfenced(routes_at(routes), asking.fences, frozenset(served))
        unreadable += _without_fence(asking, frozenset(served))
    named = ", ".join(dict.fromkeys(kinds)) or "no rules"
    facts = Facts("", f"linux {named}", 0.0, routes, fence, (), tuple(dict.fromkeys(unreadable)))
    return facts, found[1] if found else 0, beside


def routes_at(routes: tuple[Route, ...]) -> frozenset[str]:
    """The addresses at which something is routed somewhere."""
    return frozenset(route.address for route in routes if route.endpoints)


def _unfenced(shown: frozenset[str], fences: Mapping[str, str], served: frozenset[int]) -> list[Unreadable]:
    """Families that the node serves and whose fence it does not show, while it shows another family's.

    kube-proxy's two proxiers sync apart: the epoch of one says nothing about the routes of the other.
    """
    found = []
    for address, install in fences.items():
        family = ip_address(address).version
        others = [one for one, name in fences.items() if name == install and one != address]
        if family in served and address not in shown and not shown.isdisjoint(others):
            found.append(Unreadable(f"no epoch is shown at {address}", f"the IPv{family} fence of {install}"))
    return found


def _without_fence(asking: Asking, served: frozenset[int]) -> list[Unreadable]:
    """Families that are asked about, that the node serves, and in which a fence has no address at all: its Service was
    made before the cluster had two, and keeps its one until somebody writes it (KEP-563)."""
    asked = {6 if ":" in one.address else 4 for one in asking.endpoints or ()}
    found = []
    for install in dict.fromkeys(asking.fences.values()):
        fenced = {ip_address(address).version for address, name in asking.fences.items() if name == install}
        for family in (4, 6):
            if family in asked and family in served and family not in fenced:
                why = f"it has no IPv{family} address, and IPv{family} is routed here: write its Service anew"
                found.append(Unreadable(why, f"the fence of {install}"))
    return found


def has_legacy() -> bool:
    """Whether some rules have no generation, or may have none: they have to be read again to see a change."""
    try:
        return any(_is_legacy(family) for family in _LEGACY_NAMES) or bool(_ipvs_lines())
    except OSError:
        return True


def _beside() -> Beside:
    saves = tuple((version, *_save(version)) for version in (4, 6) if _is_legacy(version))
    return Beside(saves, _ipvs_lines())


def _save(family: int) -> tuple[str, bytes]:
    """The nat table as iptables-legacy keeps it, by whichever name its tool has here."""
    prefix = _PREFIXES[family]
    named = f"{prefix}-legacy-save"
    if shutil.which(named):
        return named, output(named, "-t", "nat")
    printed = output(f"{prefix}-save", "-t", "nat")
    if b"nf_tables" in printed[:200]:
        raise NotRead(f"{prefix}-save is the other backend's, and there is no {named}")
    return f"{prefix}-save", printed


def _is_legacy(family: int) -> bool:
    """Whether iptables-legacy has a nat table here. Only then its tool is run: to run it would make one."""
    try:
        with open(_LEGACY_NAMES[family], encoding="ascii") as file:
            return "nat" in file.read().split()
    except FileNotFoundError:
        return False


def _ipvs_lines() -> int:
    try:
        with open(_IPVS, encoding="ascii") as file:
            return max(0, len(file.read().splitlines()) - _IPVS_HEADER_LINES)
    except FileNotFoundError:
        return 0
