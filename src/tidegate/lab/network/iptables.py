"""How a kube-proxy in iptables mode brings its rules into a real kernel: one iptables-restore for each sync.

Atomic for each table and not for both: filter is in force before nat is, and stays when nat is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

from tidegate.lab.kernel.tables import ServiceEntry
from tidegate.lab.network.conntrack import UdpFlows
from tidegate.lab.network.iptables_136 import (
    FILTER_CHAINS,
    FORWARDING,
    JUMPS,
    LARGE,
    LAST,
    LOCALNET,
    MASQUERADING,
    NAT_CHAINS,
    OWN_CHAINS,
    Part,
    part,
)
from tidegate.lab.network.seam import NodePlace, Run

_RESTORE = ("iptables-restore", "-w", "5", "--noflush", "--counters")
_LOCALNET = ("sh", "-c", "echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet")
"""NodePorts answer on 127.0.0.1 too; LOCALNET is what keeps others from dialling it."""

_STALE_SECONDS = 30.0
"""syncPeriod: how often a large cluster's proxy deletes the chains that nothing leads to."""

_Key = tuple[str, str, str, str]


class IptablesRules:
    """As pkg/proxy/iptables/proxier.go syncProxyRules of v1.36; the jumps of the hooks go into the same restore."""

    def __init__(self, place: NodePlace, run: Run) -> None:
        self._place = place
        self._run = run
        self._flows = UdpFlows(run)
        self._parts: dict[_Key, tuple[ServiceEntry, Part]] = {}
        self._chains: dict[str, None] | None = None
        """Chains of Services known to be there; ``None`` at the beginning and after anything that went wrong."""
        self._deleted_at = -_STALE_SECONDS

    async def commit(self, entries: tuple[ServiceEntry, ...]) -> None:
        """See ``seam.NodeRules``. Raises ``TableError`` for entries of a relay; then the kernel was not touched."""
        now = asyncio.get_running_loop().time()
        is_full, is_large = self._chains is None, sum(map(_endpoints, entries)) > LARGE
        known = {} if is_full else self._parts
        parts: dict[_Key, tuple[ServiceEntry, Part]] = {}
        for entry in entries:
            key = (entry.namespace, entry.name, entry.port_name, entry.protocol)
            found = known.get(key)
            if found is None or found[0] != entry:
                found = entry, part(entry, self._place, is_large=is_large)
            parts[key] = found
        must_clean = self._flows.must_clean(entries)
        chains, self._chains = self._chains, None  # unknown until it is through, also when cancelled in between
        jumps: list[tuple[str, str, str]] = []
        if chains is None:
            await self._run(_LOCALNET, b"")
            chains, jumps = await self._found()
        active = dict.fromkeys(name for _, found in parts.values() for name in found.chains)
        must_delete = not is_large or now - self._deleted_at > _STALE_SECONDS
        stale = [name for name in chains if name not in active] if must_delete else []
        changed = [found for key, (entry, found) in parts.items() if key not in known or known[key][0] != entry]
        everything = [found for _, found in parts.values()]
        lines = [*_filter(everything, jumps), *_nat(everything, changed, stale, jumps)]
        if is_full:
            lines = ["*mangle", ":KUBE-PROXY-CANARY - [0:0]", "COMMIT", *lines]
        await self._run(_RESTORE, "".join(f"{line}\n" for line in lines).encode())
        self._parts = parts
        self._chains = {**active, **dict.fromkeys(name for name in chains if name not in stale)}
        self._deleted_at = now if must_delete else self._deleted_at
        if must_clean:
            await self._flows.clean(entries)

    async def _found(self) -> tuple[dict[str, None], list[tuple[str, str, str]]]:
        """The chains of Services that are there, and the jumps that are not."""
        chains: dict[str, None] = {}
        missing: list[tuple[str, str, str]] = []
        for table in ("nat", "filter"):
            saved = (await self._run(("iptables-save", "-t", table), b"")).decode().splitlines()
            chains |= dict.fromkeys(line[1:].split(" ")[0] for line in saved if line[1:].startswith(OWN_CHAINS))
            rules = frozenset(saved)
            missing += [jump for jump in JUMPS if jump[0] == table and f"-A {jump[1]} {jump[2]}" not in rules]
        return chains, missing


def _endpoints(entry: ServiceEntry) -> int:
    return len(entry.routing.serving) if entry.routing else 0


def _filter(parts: Iterable[Part], jumps: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    yield "*filter"
    yield from _chain_lines((*FILTER_CHAINS, "KUBE-FIREWALL", "KUBE-PROXY-CANARY"))
    yield from _jump_lines("filter", jumps)
    yield LOCALNET
    for one in parts:
        yield from one.filter
    yield from FORWARDING
    yield "COMMIT"


def _nat(
    parts: Iterable[Part], changed: list[Part], stale: list[str], jumps: Iterable[tuple[str, str, str]]
) -> Iterator[str]:
    """``parts`` dispatch, ``changed`` have their chains written, ``stale`` chains are deleted."""
    yield "*nat"
    yield from _chain_lines((*NAT_CHAINS, "KUBE-PROXY-CANARY"))
    for one in changed:
        yield from _chain_lines(one.chains)
    yield from _chain_lines(stale)
    yield from _jump_lines("nat", jumps)
    yield from MASQUERADING
    for one in parts:
        yield from one.nat
    for one in changed:
        for rules in one.chains.values():
            yield from rules
    for name in stale:
        yield f"-X {name}"
    yield LAST
    yield "COMMIT"


def _chain_lines(names: Iterable[str]) -> Iterator[str]:
    """Makes the chains, or empties them."""
    for name in names:
        yield f":{name} - [0:0]"


def _jump_lines(table: str, jumps: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    for of, hook, rule in jumps:
        if of == table:
            yield f"-I {hook} {rule}"
