"""UDP flows that stay bound to a cut pod: which a node may be made to forget, so that their next datagram is routed.

A tracked UDP flow goes where its first datagram went, whatever the rules say by now. kube-proxy forgets such flows
once, after the commit that changed their Service (pkg/proxy/conntrack/cleanup.go of v1.36): never when that sync
failed, not those that were confirmed a moment later, and, on purpose, not those of an endpoint that terminates and
still serves. A client that asks on one socket for ever then keeps its pod for ever. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from tidegate.dataplane.facts import Facts, Tracked
from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import Epoch, earliest

AFTER_SECONDS = 10.0
"""How long kube-proxy has to do it itself. One-way flows end by themselves after 30 s, answered ones after 120 s."""
AGAIN_SECONDS = 5.0
FLOWS_MAX = 1000
"""In one go; what is left is moved in the next."""


def stranded(facts: Facts, endpoints: Iterable[Endpoint], epoch: Epoch) -> tuple[Tracked, ...]:
    """The UDP flows to ``endpoints`` that no rule leads there any more.

    Only in a dump that was understood and shows fence >= ``epoch``; only to an endpoint without a route in that dump;
    only what was dialled at another address: who asks a pod by its own address asks that pod and no other.
    """
    shown = tuple(seen for seen in facts.fence if seen.install == epoch.install)
    if facts.unreadable or not shown or not earliest(shown).reaches(epoch):
        return ()
    return tuple(
        dict.fromkeys(
            flow
            for endpoint in endpoints
            if not facts.routes_to(endpoint)
            for flow in facts.opening_to(endpoint)
            if flow.protocol == "UDP" and flow.destination.address != flow.endpoint.address
        )
    )
