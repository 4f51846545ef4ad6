"""How a kube-proxy brings its table into a real kernel: a transaction for each sync, the whole table when in doubt."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import msgspec

from tidegate.lab.kernel.client import KernelError
from tidegate.lab.kernel.tables import ServiceEntry
from tidegate.lab.network.conntrack import UdpFlows
from tidegate.lab.network.iptables import IptablesRules
from tidegate.lab.network.nft_130 import Layout130
from tidegate.lab.network.nft_136 import Layout136
from tidegate.lab.network.nft_common import Layout
from tidegate.lab.network.seam import IPTABLES_1_36, NFT_1_30, NFT_1_36, SHAPES, NodePlace, NodeRules, Run
from tidegate.lab.network.table import TABLE, Ruleset, commands, deleted, emptied

_LINGER_SECONDS = 1.0
"""How long an emptied chain stays at least."""

_LISTING = ("nft", "--json", "--terse", "list", "table", "ip", TABLE)
_NO_TABLE = "No such file or directory"
_LAYOUTS: dict[str, type[Layout]] = {NFT_1_36: Layout136, NFT_1_30: Layout130}


def node_rules(shape: str, run: Run, place: NodePlace) -> NodeRules:
    """The rules of the node at ``place``, laid out as ``shape`` (one of ``seam.SHAPES``), written through ``run``.

    Make one for each life of a proxy: a new one writes everything, as a proxy that starts does. Raises ``ValueError``
    for another shape.
    """
    if shape not in SHAPES:
        raise ValueError(f"a real kernel has no rules of {shape} here, only of {', '.join(SHAPES)}")
    return IptablesRules(place, run) if shape == IPTABLES_1_36 else NftRules(_LAYOUTS[shape](place), run)


class NftRules:
    """As ``proxier.go`` syncProxyRules; the transaction's text is the only thing the kernel ever hears of it."""

    def __init__(self, layout: Layout, run: Run) -> None:
        self._layout = layout
        self._run = run
        self._written: Ruleset | None = None
        """What the table is known to hold; ``None`` after anything that may have gone wrong, and at the beginning."""
        self._lingering: dict[str, float] = {}
        """Emptied chains, by when they were last emptied (the loop's seconds)."""
        self._is_first = True
        self._flows = UdpFlows(run)

    async def commit(self, entries: tuple[ServiceEntry, ...]) -> None:
        """See ``seam.NodeRules``. Raises ``TableError`` for entries of a relay; then the kernel was not touched."""
        wanted = self._layout.ruleset(entries)
        now = asyncio.get_running_loop().time()
        must_clean = self._flows.must_clean(entries)
        written, self._written = self._written, None  # unknown until it is through, also when cancelled in between
        if not await self._delete_lingering(now):
            written = None
        if written is None:
            written = await self._found()
            is_full = True
        else:
            is_full = self._layout.is_rewritten
        lines = list(self._full(written, wanted) if is_full else commands(written, wanted))
        gone = [name for name in (*self._lingering, *written.chains) if name not in wanted.chains]
        lines += emptied(name for name in self._lingering if name not in wanted.chains and name not in written.chains)
        try:
            await self._transaction(lines)
        except BaseException:
            self._lingering.clear()
            raise
        self._lingering = dict.fromkeys(gone, now)
        self._written = wanted
        self._is_first = False
        if must_clean:
            await self._flows.clean(entries)

    def _full(self, written: Ruleset, wanted: Ruleset) -> Iterable[str]:
        """Everything anew in one transaction, whatever is there."""
        yield from self._layout.base(is_first=self._is_first)
        unread = {name: ["?"] for name in written.chains}
        yield from commands(Ruleset(chains=unread, affinity=dict.fromkeys(written.affinity, 0)), wanted)

    async def _delete_lingering(self, now: float) -> bool:
        """Delete emptied chains that are old enough, in a transaction of their own; whether that went well."""
        due = [name for name, since in self._lingering.items() if since < now - _LINGER_SECONDS]
        for name in due:
            del self._lingering[name]
        try:
            await self._transaction(list(deleted(due)))
        except KernelError:
            return False
        return True

    async def _transaction(self, lines: Sequence[str]) -> None:
        if lines:
            await self._run(("nft", "-f", "-"), "".join(f"{line}\n" for line in lines).encode())

    async def _found(self) -> Ruleset:
        """What another proxy, or this one before it went wrong, left in the table: names only."""
        try:
            listing = await self._run(_LISTING, b"")
        except KernelError as error:
            if _NO_TABLE in str(error):
                return Ruleset()
            raise
        found = Ruleset()
        for one in msgspec.json.decode(listing)["nftables"]:
            if "/" in one.get("chain", {}).get("name", ""):
                found.chain(one["chain"]["name"])
            elif one.get("set", {}).get("name", "").startswith("affinity-"):
                found.affinity[one["set"]["name"]] = 0
        return found
