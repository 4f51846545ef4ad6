"""Which UDP flows a node may be made to forget: those that no rule leads where they go any more, and no others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tidegate.dataplane.facts import Facts, Route, Tracked, Unreadable
from tidegate.drain.stranded import stranded
from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import Epoch

POD = Endpoint("10.244.1.2")
E7, E8 = Epoch("main", 7), Epoch("main", 8)


def flow(to="10.244.1.2", dialled="10.96.0.9", protocol="UDP", port=4000):
    ends = [Endpoint(address, at, protocol) for address, at in (("10.244.2.9", port), (dialled, 53), (to, 5300))]
    return Tracked(protocol, "NONE" if protocol == "UDP" else "SYN_SENT", *ends)


SHOWN = Facts("node-1", "dump", 1.0, (), (E8,), (flow(),))


def test_a_flow_to_a_pod_without_a_route_behind_the_fence_is_stranded():
    assert stranded(SHOWN, (POD,), E8) == (flow(),)


@pytest.mark.parametrize(
    "changed",
    [
        {"fence": (E7,)},
        {"fence": ()},
        {"fence": (E8, E7)},
        {"fence": (Epoch("other", 8),)},
        {"unreadable": (Unreadable("a rule"),)},
        {"routes": (Route("cluster-ip", "10.96.0.9", 53, "UDP", (Endpoint("10.244.1.2", 5300, "UDP"),)),)},
        {"routes": (Route("node-port", "", 30053, "TCP", (Endpoint("10.244.1.2", 80),)),)},
        {"tracked": (flow(to="10.244.1.3"),)},
        {"tracked": (flow(dialled="10.244.1.2"),)},
        {"tracked": (flow(protocol="TCP"),)},
    ],
    ids=[
        "an older fence", "no fence", "one family behind", "another installation's", "not understood", "still routed",
        "routed by another port", "another pod's", "dialled at the pod itself", "a handshake",
    ],
)  # fmt: skip
def test_nothing_else_is(changed):
    assert stranded(replace(SHOWN, **changed), (POD,), E8) == ()


def test_a_route_to_one_pod_keeps_the_flows_of_no_other():
    routed = Endpoint("10.244.1.3")
    route = Route("cluster-ip", "10.96.0.9", 53, "UDP", (Endpoint("10.244.1.3", 5300, "UDP"),))
    shown = replace(SHOWN, routes=(route,), tracked=(flow(), flow(to="10.244.1.3")))
    assert stranded(shown, (POD, routed), E8) == (flow(),)
