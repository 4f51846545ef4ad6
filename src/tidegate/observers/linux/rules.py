"""Every translating rule of this network namespace, of every backend, as one consistent reading.

nftables is read as one dump; the rules that iptables-nft keeps there too are read again by its own tool, for nft does
not print where they translate to; iptables-legacy and ipvs are beside. Were the rules changed in between, all of it
is read again: a route that moved from one backend to the other must not be missed in both.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

import msgspec

from tidegate.dataplane import iptables, nft
from tidegate.dataplane.facts import Facts, Route, Unreadable
from tidegate.dataplane.frontends import Asking
from tidegate.model.endpoint import Endpoint
from tidegate.observers.linux.commands import CommandFailed, output
from tidegate.observers.linux.generation import ABSENT, Generations

TRIES = 5
OWN_TABLE = ("inet", "tidegate")
"""Kept by ``gate.py`` as it was made; it leads to the holder of this node and nowhere else, so it is not traced."""
_LEGACY_NAMES = {4: "/proc/net/ip_tables_names", 6: "/proc/net/ip6_tables_names"}
_PREFIXES = {4: "iptables", 6: "ip6tables"}
_NFT_FAMILIES = {"ip": (4,), "ip6": (6,), "inet": (4, 6)}
_IPVS = "/proc/net/ip_vs"
_IPVS_HEADER_LINES = 3
_HIDDEN = b'"xt"'
"""How nft prints, in JSON, an expression that is iptables-nft's."""
_PARSED_MAX = 16


class NotRead(Exception):
    """The rules, or a part of them, could not be read."""


class _Chain(msgspec.Struct):
    family: str
    table: str
    type: str = ""


class _Table(msgspec.Struct):
    family: str
    name: str


class _Outline(msgspec.Struct):
    table: _Table | None = None
    chain: _Chain | None = None


class _Outlines(msgspec.Struct):
    nftables: list[_Outline]


_OUTLINES = msgspec.json.Decoder(_Outlines)


@dataclass(frozen=True)
class Dumps:
    """What the tools printed of one state of the rules. ``served``: families for which something translates."""

    nft: bytes = b""
    saves: tuple[tuple[str, bytes], ...] = ()
    elsewhere: frozenset[str] = frozenset()
    served: frozenset[int] = frozenset()
    kinds: tuple[str, ...] = ()
    ipvs: int = 0
    _parsed: dict[tuple[Endpoint, ...] | None, Facts] = field(default_factory=dict, compare=False)

    def facts(self, endpoints: tuple[Endpoint, ...] | None, fences: Mapping[str, str], address: str) -> Facts:
        """What leads to ``endpoints``, or everything for None, with the fence."""
        found = self._parsed.get(endpoints)
        if found is None:
            if len(self._parsed) >= _PARSED_MAX:
                self._parsed.clear()
            addresses = (address,) if address else ()
            asking = Asking(endpoints, fences, addresses, self.elsewhere)
            found = self._parsed[endpoints] = self._understand(asking)
        return found

    def _understand(self, asking: Asking) -> Facts:
        parts = [nft.parse(self.nft, "nft", asking)] if self.nft else []
        parts += [iptables.parse(text.decode(errors="replace"), name, asking) for name, text in self.saves]
        unreadable = [one for part in parts for one in part.unreadable]
        if self.ipvs:
            why = f"ipvs forwards for {self.ipvs} virtual servers and real servers, which is not read yet"
            unreadable.append(Unreadable(why, _IPVS))
        routes = tuple(route for part in parts for route in part.routes)
        fence = tuple(epoch for part in parts for epoch in part.fence)
        unreadable += [] if unreadable else _unfenced(routes_at(routes), asking.fences, self.served)
        kinds = ", ".join(self.kinds) or "no rules"
        return Facts("", f"linux {kinds}", 0.0, routes, fence, (), tuple(dict.fromkeys(unreadable)))


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


def read(generations: Generations) -> tuple[Dumps, int]:
    """All rules, and a generation of nftables they are of, or later. Raises ``NotRead``.

    nft alone gives one state of the rules: it begins again when they change under it (nft_cache_update, src/cache.c).
    iptables' own cache (iptables/nft-cache.c) does not, so with it the generation has to be the same before and after.
    """
    try:
        for _ in range(TRIES):
            generation = generations.now()
            dumps = _read(generation != ABSENT)
            if not dumps.saves or generations.now() == generation:
                return dumps, generation
    except (CommandFailed, OSError) as error:
        raise NotRead(str(error)) from error
    except msgspec.DecodeError as error:
        raise NotRead(f"not a rule set of nft: {error}") from error
    raise NotRead(f"the rules changed during each of {TRIES} readings")


def has_legacy() -> bool:
    """Whether some rules have no generation, or may have none: they have to be read again to see a change."""
    try:
        return any(_is_legacy(family) for family in _LEGACY_NAMES) or bool(_ipvs_lines())
    except OSError:
        return True


def _read(has_nft: bool) -> Dumps:
    printed = output("nft", "-j", "list", "ruleset") if has_nft else b""
    tables, chains = _outline(printed)
    served = {family for chain in chains for family in _NFT_FAMILIES.get(chain.family, ())}
    kinds = ["nftables"] if any(chain.table != "nat" for chain in chains) else []
    elsewhere = {"legacy", " ".join(OWN_TABLE)}
    saves: list[tuple[str, bytes]] = []
    for version, family in ((4, "ip"), (6, "ip6")):
        if _HIDDEN in printed and (family, "nat") in tables:
            saves.append(_save(version, "nft"))
            elsewhere.add(f"{family} nat")
            kinds.append("iptables-nft")
        if _is_legacy(version):
            saves.append(_save(version, "legacy"))
            served.add(version)
            kinds.append("iptables-legacy")
    named = tuple(dict.fromkeys(kinds))
    return Dumps(printed, tuple(saves), frozenset(elsewhere), frozenset(served), named, _ipvs_lines())


def _outline(printed: bytes) -> tuple[set[tuple[str, str]], list[_Chain]]:
    """The tables, and the base chains that translate but our own."""
    objects = _OUTLINES.decode(printed).nftables if printed else []
    tables = {(one.table.family, one.table.name) for one in objects if one.table is not None}
    chains = [one.chain for one in objects if one.chain is not None and one.chain.type == "nat"]
    return tables, [chain for chain in chains if (chain.family, chain.table) != OWN_TABLE]


def _save(family: int, backend: str) -> tuple[str, bytes]:
    """The nat table as ``backend`` (nft or legacy) keeps it, by whichever name its tool has here."""
    prefix = _PREFIXES[family]
    named = f"{prefix}-{backend}-save"
    if shutil.which(named):
        return named, output(named, "-t", "nat")
    printed = output(f"{prefix}-save", "-t", "nat")
    if (b"nf_tables" in printed[:200]) != (backend == "nft"):
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
