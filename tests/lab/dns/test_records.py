"""The lab's DNS answers as CoreDNS's kubernetes and cache plugins do."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.rcode
import pytest

from tidegate.lab.dns.answering import Answering
from tidegate.lab.dns.records import Records


def slice_of(service, *endpoints, name="s", ports=({"name": "http", "port": 8080},), namespace="demo"):
    labels = {"kubernetes.io/service-name": service}
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "endpoints": list(endpoints),
        "ports": list(ports),
    }


def at(address, ready=True, **fields):
    return {"addresses": [address], "conditions": {"ready": ready}, **fields}


def world(*endpoints, ports=({"name": "http", "port": 8080},)):
    records = Records()
    records.put_service(("demo", "web"), {"spec": {"clusterIP": "127.18.0.9", "ports": [{"name": "http", "port": 80}]}})
    records.put_service(("demo", "peers"), {"spec": {"clusterIP": "None", "ports": []}})
    records.put_slice(("demo", "w"), slice_of("web", *endpoints, ports=ports))
    records.put_slice(("demo", "p"), slice_of("peers", *endpoints, ports=ports))
    return records


def data(records, name, kind="A"):
    return [one.data for one in records.look_up(f"{name}.svc.cluster.local.", kind).answers]


def test_a_cluster_ip_answers_for_its_pods_and_a_headless_service_with_them():
    records = world(at("10.0.0.1"), at("10.0.0.2", hostname="db-0"))
    assert data(records, "web.demo") == ["127.18.0.9"]
    assert data(records, "PEERS.demo") == ["10.0.0.1", "10.0.0.2"]
    assert data(records, "10-0-0-1.web.demo") == ["10.0.0.1"], "an endpoint's own name exists for both"
    assert data(records, "db-0.peers.demo") == ["10.0.0.2"]
    assert data(records, "10-0-0-2.peers.demo") == []


@pytest.mark.parametrize(("ready", "is_there"), [(True, True), (None, True), (False, False)])
def test_an_endpoint_counts_unless_it_is_not_ready(ready, is_there):
    """A terminating one is not; one of publishNotReadyAddresses is until it is gone."""
    records = world(at("10.0.0.1", ready, **{}))
    assert bool(data(records, "peers.demo")) is is_there
    assert records.look_up("peers.demo.svc.cluster.local.", "A").exists is is_there


def test_srv_records_have_port_and_owner_and_their_addresses_beside_them():
    records = world(at("10.0.0.1"))
    told = records.look_up("_http._tcp.peers.demo.svc.cluster.local.", "SRV")
    assert [one.data for one in told.answers] == ["0 100 8080 10-0-0-1.peers.demo.svc.cluster.local."]
    assert [(one.owner, one.data) for one in told.additional] == [
        ("10-0-0-1.peers.demo.svc.cluster.local.", "10.0.0.1")
    ]
    assert data(world(at("10.0.0.1"), ports=()), "peers.demo", "SRV") == []
    assert data(world(at("10.0.0.1"), ports=()), "peers.demo") == ["10.0.0.1"], (
        "without ports there are addresses still"
    )


def test_ipv6_has_its_own_records_and_a_pods_spelled_name_is_its_address():
    records = world(at("fd00::1"))
    assert data(records, "peers.demo") == [] and data(records, "peers.demo", "AAAA") == ["fd00::1"]
    assert records.look_up("peers.demo.svc.cluster.local.", "A").exists, "the name exists: NODATA"
    assert [one.data for one in records.look_up("10-9-9-9.demo.pod.cluster.local.", "A").answers] == ["10.9.9.9"]
    assert records.look_up("example.org.", "A") is None


def test_a_slice_that_moves_to_another_service_is_gone_from_the_first():
    records = world(at("10.0.0.1"))
    records.put_slice(("demo", "p"), slice_of("web", at("10.0.0.1")))
    assert data(records, "peers.demo") == []


def query(name="peers.demo.svc.cluster.local.", kind="A", **options):
    return dns.message.make_query(name, kind, **options)


def asked(answering, now, message=None, is_datagram=True):
    return dns.message.from_wire(answering.answer((message or query()).to_wire(), now, is_datagram=is_datagram))


def test_a_cache_answers_what_it_knew_with_what_is_left_of_its_ttl_by_name_type_do_and_cd():
    records = world(at("10.0.0.1"))
    answering = Answering(records)
    assert asked(answering, 0.0).answer[0].ttl == 30
    records.put_slice(("demo", "p"), None)
    kept = asked(answering, 12.0)
    assert (kept.answer[0].ttl, kept.answer[0][0].address) == (18, "10.0.0.1")
    unchecked = query()
    unchecked.flags |= dns.flags.CD
    for other in (query(want_dnssec=True), unchecked, query("peers.demo.svc.cluster.local.", "AAAA")):
        assert asked(answering, 12.0, other).rcode() == dns.rcode.NXDOMAIN
    assert asked(answering, 30.0).rcode() == dns.rcode.NXDOMAIN
    assert asked(answering, 30.0).authority[0][0].minimum == 30


def test_without_a_cache_every_answer_is_fresh():
    answering = Answering(records := world(at("10.0.0.1")), cache_seconds=0)
    asked(answering, 0.0)
    records.put_slice(("demo", "p"), None)
    assert asked(answering, 0.1).rcode() == dns.rcode.NXDOMAIN


def test_what_does_not_fit_a_datagram_is_cut_short_and_comes_over_tcp():
    answering = Answering(world(*(at(f"10.0.{index // 200}.{index % 200 + 1}") for index in range(300))))
    cut = asked(answering, 0.0)
    assert cut.flags & dns.flags.TC and not cut.answer
    assert len(asked(answering, 0.0, is_datagram=False).answer[0]) == 300


def test_other_zones_are_refused_and_what_is_no_question_gets_no_answer():
    answering = Answering(world())
    assert asked(answering, 0.0, query("example.org.")).rcode() == dns.rcode.REFUSED
    assert answering.answer(b"hello", 0.0, is_datagram=True) is None
    assert answering.answer(asked(answering, 0.0).to_wire(), 0.0, is_datagram=True) is None
