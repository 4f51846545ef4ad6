"""Reads one node's rules without end, as JSON lines: ``python -m tidegate.rehearse.fence.sampler NODE ADDRESS FENCE``.

To be run inside the node's network namespace. Two readers side by side: what the agent would say (``agent``), and for
the judge a plain search of ``nft list ruleset`` and ``iptables-save`` for addresses in rules that translate. It
understands nothing and so misses nothing: a target in a rule that nothing leads to counts as routed too.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from typing import Any

from tidegate import vtime
from tidegate.observers.linux import LinuxKernel

PAUSE_SECONDS = 0.01
COMMAND = ("sh", "-c", "nft -n list ruleset && iptables-save -t nat")
_TARGET = re.compile(r"(?<![\d.])(\d+\.\d+\.\d+\.\d+)(?: \. |:)(\d+)(?!\d)")
_FENCE = re.compile(r"198\.1[89]\.")


def search(ruleset: str) -> tuple[list[str], list[str]]:
    """The endpoints of the fence, and all others, in rules with ``dnat``."""
    fence: dict[str, None] = {}
    routed: dict[str, None] = {}
    for line in ruleset.splitlines():
        # Whatever a rule is about besides (addresses it asks for) is left of its translation.
        _, found, target = line.partition("--to-destination" if line.startswith("-A") else "dnat")
        for address, port in _TARGET.findall(target) if found else ():
            (fence if _FENCE.match(address) else routed)[f"{address}:{port}"] = None
    return list(fence), list(routed)


async def _agent(kernel: LinuxKernel) -> dict[str, Any]:
    facts = (await kernel.read(None)).facts
    return {
        "fence": [one.number for one in facts.fence],
        "routed": [str(to) for route in facts.routes for to in route.endpoints],
        "unreadable": [str(one) for one in facts.unreadable],
    }


async def main(node: str, address: str, fence: str) -> None:
    kernel = LinuxKernel(node, address, lambda: {fence: "main"})
    last = ""
    while True:
        at = vtime.now().timestamp()
        listed = subprocess.run(COMMAND, capture_output=True, text=True, check=False)
        told: dict[str, Any] = {"at": at, "ended": vtime.now().timestamp()}
        if listed.returncode == 0 and listed.stdout != last:
            last = listed.stdout
            told["fence"], told["routed"] = search(last)
            told["agent"] = await _agent(kernel)
        if listed.returncode == 0:
            print(json.dumps(told), flush=True)  # without the rest: the same rules as before
        await asyncio.sleep(PAUSE_SECONDS)  # realtime: a real kernel


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
