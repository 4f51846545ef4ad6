"""The lab kernel's dump: what is routed where, and that nothing strange reads as clean."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.dataplane import labkernel
from tidegate.drain import Verdict, acknowledge
from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import Epoch

POD = Endpoint("127.17.1.5", 8080)
OTHER = Endpoint("127.17.2.5", 8080)
EPOCH = Epoch("k3f9", 41)


def service(namespace="demo", name="echo", endpoints=(str(OTHER),), **more):
    return {
        "namespace": namespace, "name": name, "port_name": "http", "protocol": "TCP", "cluster_ip": "127.18.0.7",
        "port": 80, "node_port": 0, "endpoints": list(endpoints), "affinity_seconds": 0, **more,
    }  # fmt: skip


def fence(epoch=EPOCH, **more):
    shown = [str(epoch.endpoint4())] if epoch else []
    return service("tidegate-system", "tidegate-fence-k3f9", shown, port_name="fence", port=1, **more)


def dump(**more):
    return {
        "kernel": "tidegate-lab/1", "node": "node-1", "generation": 7, "at": 1795248000.25,
        "services": [service(), fence()], "redirects": [], "conntrack": [], **more,
    }  # fmt: skip


def entry(state="SYN_SENT", **more):
    return {
        "protocol": "tcp", "state": state, "source": "127.16.0.1:41000", "destination": "127.18.0.7:80",
        "endpoint": str(POD), **more,
    }  # fmt: skip


def test_a_dump_is_understood():
    facts = labkernel.parse(dump(conntrack=[entry()]), "node-1")
    assert facts.unreadable == ()
    assert facts.dump == "tidegate-lab/1 generation 7"
    assert facts.at == 1795248000.25
    assert [str(route) for route in facts.routes] == [
        "demo/echo:http (cluster-ip 127.18.0.7:80/TCP)",
        "tidegate-system/tidegate-fence-k3f9:fence (cluster-ip 127.18.0.7:1/TCP)",
    ]
    assert facts.fence == (EPOCH,)
    assert str(facts.tracked[0]) == "SYN_SENT 127.16.0.1:41000 -> 127.18.0.7:80 -> 127.17.1.5:8080"


def test_text_and_decoded_json_read_alike():
    assert labkernel.parse(json.dumps(dump()).encode(), "node-1") == labkernel.parse(dump(), "node-1")


def test_a_node_port_is_a_route_of_its_own():
    facts = labkernel.parse(dump(services=[service(endpoints=[str(POD)], node_port=30080)]), "node-1")
    assert [route.via for route in facts.routes_to(POD)] == ["cluster-ip", "node-port"]


def test_a_redirect_to_the_pod_is_a_route():
    facts = labkernel.parse(dump(redirects=[{"port": 15299, "target": str(POD)}]), "node-1")
    assert [str(route) for route in facts.routes_to(POD)] == ["redirect *:15299/TCP"]


def test_a_fence_without_endpoint_shows_no_epoch():
    facts = labkernel.parse(dump(services=[fence(epoch=None)]), "node-1")
    assert (facts.fence, facts.unreadable) == ((), ())


def test_a_service_of_that_name_elsewhere_is_no_fence():
    elsewhere = service("demo", "tidegate-fence-k3f9", [str(EPOCH.endpoint4())])
    assert labkernel.parse(dump(services=[elsewhere]), "node-1").fence == ()


@pytest.mark.parametrize(
    "bad",
    [
        None,
        [],
        "",
        "not json",
        b"\xff\xfe",
        {},
        dump(kernel="tidegate-lab/2"),
        dump(node="node-2"),
        dump(surprise=1),
        dump(services=None),
        dump(services=[service(surprise=1)]),
        dump(services=[service(protocol="UDP")]),
        dump(services=[service(endpoints=["127.17.1.5"])]),
        dump(services=[service(endpoints=["nowhere:80"])]),
        dump(services=[service(cluster_ip="None")]),
        dump(services=[fence() | {"endpoints": [str(EPOCH.endpoint4()), str(EPOCH.next().endpoint4())]}]),
        dump(services=[fence() | {"endpoints": ["10.0.0.1:80"]}]),
        dump(conntrack=[entry("NEW_STATE")]),
        dump(conntrack=[entry(protocol="udp")]),
        dump(conntrack=[entry(endpoint="somewhere")]),
        dump(redirects=[{"port": 1}]),
    ],
)
def test_what_is_not_understood_is_unreadable_and_blocks(bad):
    facts = labkernel.parse(bad, "node-1")
    assert facts.unreadable
    assert facts.routes == ()
    assert acknowledge(facts, (POD,), EPOCH).verdict is Verdict.UNREADABLE


@given(st.data())
def test_a_damaged_dump_never_reads_as_clean_when_the_whole_one_did_not(data):
    whole = json.dumps(dump(services=[service(endpoints=[str(POD), str(OTHER)]), fence()]))
    start = data.draw(st.integers(0, len(whole) - 1))
    length = data.draw(st.integers(1, 40))
    damaged = whole[:start] + data.draw(st.text(max_size=8)) + whole[start + length :]
    verdict = acknowledge(labkernel.parse(damaged, "node-1"), (POD,), EPOCH).verdict
    # Only damage that leaves a well-formed dump with another address in it can pass for clean.
    assert verdict is not Verdict.CONFIRMED or str(POD) not in damaged


def test_parsing_leaves_the_dump_alone():
    before = dump()
    after = copy.deepcopy(before)
    labkernel.parse(after, "node-1")
    assert before == after


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(dump())), inner, max_size=7),
    max_leaves=12,
)


@given(JSON | st.text() | st.binary())
def test_whatever_comes_is_facts_and_never_an_exception(raw):
    facts = labkernel.parse(raw, "node-1")
    assert facts.unreadable or facts.dump.startswith("tidegate-lab/1 generation")


@given(st.dictionaries(st.sampled_from(sorted(dump())), JSON, min_size=1, max_size=3))
def test_a_dump_with_fields_replaced_is_whole_or_unreadable(replaced):
    facts = labkernel.parse(dump(**replaced), "node-1")
    assert bool(facts.unreadable) != (facts.dump.startswith("tidegate-lab/1 generation"))
