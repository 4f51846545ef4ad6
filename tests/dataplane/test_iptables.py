"""iptables-save: a KUBE-SEP chain is a route only when a rule leads to it; comments are not needed for that."""

from __future__ import annotations

import re

import golden_dumps as dumps
import pytest
from rulesets import iptables

from tidegate.dataplane.frontends import Asking
from tidegate.dataplane.iptables import parse
from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import Epoch

POD, OTHER = Endpoint("10.244.1.11", 8080), Endpoint("10.244.1.12", 8080)
EPOCH = Epoch("k3f9", 41)
VIP = "-d 10.96.1.1/32 -p tcp -m tcp --dport 80"
TO_POD = "-p tcp -m tcp -j DNAT --to-destination 10.244.1.11:8080"
TO_OTHER = "-p tcp -m tcp -j DNAT --to-destination 10.244.1.12:8080"


def kube(services=f"{VIP} -j KUBE-SVC-WEB", svc=("-j KUBE-SEP-POD",), extra=None, **more):
    nat = {
        "PREROUTING": ["-j KUBE-SERVICES"],
        "OUTPUT": ["-j KUBE-SERVICES"],
        "KUBE-SERVICES": [services],
        "KUBE-SVC-WEB": list(svc),
        "KUBE-SEP-POD": ["-s 10.244.1.11/32 -j KUBE-MARK-MASQ", TO_POD],
        "KUBE-SEP-OTHER": ["-s 10.244.1.12/32 -j KUBE-MARK-MASQ", TO_OTHER],
        "KUBE-MARK-MASQ": ["-j MARK --set-xmark 0x4000/0x4000"],
        **(extra or {}),
    }
    return iptables(nat, **more)


def test_a_stale_endpoint_chain_with_a_rule_that_looks_alive_is_no_route():
    """Large-cluster mode leaves them for up to 30 s."""
    facts = parse(kube(svc=["-j KUBE-SEP-OTHER"]))
    assert facts.unreadable == ()
    assert not facts.routes_to(POD)
    assert [str(route) for route in facts.routes_to(OTHER)] == ["cluster-ip 10.96.1.1:80/TCP"]


@pytest.mark.parametrize("name", dumps.names("iptables-save"))
def test_without_comments_and_with_counters_the_routes_are_the_same(name):
    dump = dumps.text(name)
    bare = re.sub(r' -m comment --comment ("[^"]*"|\S+)', "", dump)
    counted = re.sub(r"^-A ", "[12:3456] -A ", bare, flags=re.MULTILINE)
    assert "comment" not in counted
    expected = dumps.truth(name, "iptables-save")
    facts = parse(counted)
    assert facts.unreadable == ()
    assert dumps.shown(facts.routes) == expected


def test_without_comments_the_fence_is_known_by_its_cluster_ip():
    at = EPOCH.endpoint4()
    fence = {
        "KUBE-SERVICES": [f"{VIP} -j KUBE-SVC-WEB", "-d 10.96.0.9/32 -p tcp -m tcp --dport 1 -j KUBE-SVC-FENCE"],
        "KUBE-SVC-FENCE": ["-j KUBE-SEP-FENCE"],
        "KUBE-SEP-FENCE": [f"-p tcp -m tcp -j DNAT --to-destination {at}"],
    }
    dump = kube(extra=fence)
    assert parse(dump).fence == ()
    assert parse(dump, asking=Asking(endpoints=(OTHER,), fences={"10.96.0.9": "k3f9"})).fence == (EPOCH,)


def test_the_fence_is_known_by_its_comment():
    at = EPOCH.endpoint4()
    comment = '-m comment --comment "tidegate-system/tidegate-fence-k3f9:fence cluster IP"'
    fence = {
        "KUBE-SERVICES": [f"-d 10.96.0.9/32 -p tcp {comment} -m tcp --dport 1 -j KUBE-SVC-FENCE"],
        "KUBE-SVC-FENCE": ["-j KUBE-SEP-FENCE"],
        "KUBE-SEP-FENCE": [f"-p tcp -m tcp -j DNAT --to-destination {at}"],
    }
    assert parse(kube(extra=fence)).fence == (EPOCH,)


def test_affinity_picks_among_the_endpoints_that_are_there():
    recent = "-m recent --rcheck --seconds 10800 --reap --name KUBE-SEP-POD --mask 255.255.255.255 --rsource"
    facts = parse(kube(svc=[f"{recent} -j KUBE-SEP-POD", "-j KUBE-SEP-OTHER"]))
    assert facts.unreadable == ()
    assert facts.routes_to(POD), "a remembered client still goes there"
    assert facts.routes_to(OTHER)


def test_chains_of_others_are_walked_too():
    portmap = {
        "PREROUTING": ["-j KUBE-SERVICES", "-m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT"],
        "CNI-HOSTPORT-DNAT": [
            '-p tcp -m comment --comment "dnat name: \\"net\\" id: \\"0a1b\\"" -m multiport '
            "--dports 8443,8444 -j CNI-DN-1"
        ],
        "CNI-DN-1": [
            "-s 10.244.1.0/24 -p tcp -m tcp --dport 8443 -j CNI-HOSTPORT-SETMARK",
            "-p tcp -m tcp --dport 8443 -j DNAT --to-destination 10.244.1.12:443",
            "-p tcp -m tcp --dport 8444 -j DNAT --to-destination 10.244.1.12:444",
        ],
        "CNI-HOSTPORT-SETMARK": ["-j MARK --set-xmark 0x2000/0x2000"],
    }
    facts = parse(kube(extra=portmap))
    assert facts.unreadable == ()
    found = {str(route): [str(to) for to in route.endpoints] for route in facts.routes if route.via == "dnat"}
    assert found == {"dnat *:8443/TCP": ["10.244.1.12:443"], "dnat *:8444/TCP": ["10.244.1.12:444"]}


@pytest.mark.parametrize(
    "rule",
    [
        "-m frobnicate --harder -j KUBE-SEP-OTHER",
        "--frobnicate -j KUBE-SEP-OTHER",
        "-j FROBNICATE --to 10.244.1.11",
        "-j KUBE-SEP-GONE",
        "-j NETMAP --to 10.244.1.0/24",
        "-j DNAT --to-destination somewhere",
        "-j DNAT",
        "-j NFQUEUE --queue-num 0",
        "-p tcp -m tcp --dport http -j KUBE-SEP-OTHER",
        "-d fd00::1/128 -j KUBE-SEP-OTHER",
        "-j RETURN --now",
        '-m comment --comment "no end -j KUBE-SEP-OTHER',
        "-j",
    ],
)
def test_what_is_not_understood_on_a_path_is_unreadable_by_chain_and_line(rule):
    facts = parse(kube(svc=[rule]))
    assert len(facts.unreadable) == 1
    assert re.fullmatch(r"table ip nat, chain KUBE-SVC-WEB, line \d+", facts.unreadable[0].where)
    line = int(facts.unreadable[0].where.rpartition(" ")[2])
    assert rule in kube(svc=[rule]).splitlines()[line - 1]


@pytest.mark.parametrize("rule", ["-m frobnicate --harder -j KUBE-SEP-OTHER", "-j FROBNICATE", "-j KUBE-SEP-GONE"])
def test_what_is_not_understood_off_every_path_does_not_block(rule):
    assert parse(kube(extra={"KUBE-SVC-STALE": [rule]})).unreadable == ()
    assert parse(kube(extra={"POSTROUTING": [rule]})).unreadable == ()


def test_a_rule_for_all_packets_ends_the_walk_and_a_rule_for_some_does_not():
    assert not parse(kube(svc=["-j KUBE-SEP-OTHER", "-j KUBE-SEP-POD"])).routes_to(POD)
    assert parse(
        kube(svc=["-m statistic --mode random --probability 0.5 -j KUBE-SEP-OTHER", "-j KUBE-SEP-POD"])
    ).routes_to(POD)
    assert not parse(kube(svc=["! -d 10.96.1.1/32 -j KUBE-SEP-POD", "-j KUBE-SEP-OTHER"])).routes_to(POD)


@pytest.mark.parametrize(
    ("target", "endpoints"),
    [
        ("-j DNAT --to-destination 10.244.1.11", ["10.244.1.11:80"]),
        ("-j DNAT --to-destination :8080", ["10.96.1.1:8080"]),
        ("-j DNAT --to-destination 10.244.1.11-10.244.1.12:8080 --random", ["10.244.1.11:8080", "10.244.1.12:8080"]),
        ("-j DNAT --to-destination 10.244.1.11:8000-8010 --persistent", ["10.244.1.11:*"]),
        ("-j REDIRECT --to-ports 15001", ["127.0.0.1:15001"]),
        ("-g KUBE-SEP-POD", ["10.244.1.11:8080"]),
        ("-j ACCEPT", []),
    ],
)
def test_targets(target, endpoints):
    facts = parse(kube(svc=[target]))
    assert facts.unreadable == ()
    assert [str(to) for route in facts.routes for to in route.endpoints] == endpoints


def test_ip6():
    nat = {
        "PREROUTING": ["-j KUBE-SERVICES"],
        "KUBE-SERVICES": ["-d fd00:96::1/128 -p tcp -m tcp --dport 80 -j KUBE-SEP-POD"],
        "KUBE-SEP-POD": ["-p tcp -m tcp -j DNAT --to-destination [fd00:10::11]:8080"],
    }
    facts = parse(iptables(nat, family="6"))
    assert facts.unreadable == ()
    assert facts.routes_to(Endpoint("fd00:10::11", 8080))
    assert str(facts.routes[0]) == "dnat fd00:96::1:80/TCP"


def test_rules_that_iptables_cannot_show_are_unreadable():
    dump = kube() + "# Table `nat' is incompatible, use 'nft' tool.\n"
    assert "read nft" in str(parse(dump).unreadable[0])
    legacy = "# Warning: iptables-legacy tables present, use iptables-legacy-save to see them\n"
    assert "legacy" in str(parse(kube() + legacy).unreadable[0])
    assert parse(kube() + legacy, asking=Asking(elsewhere=frozenset({"legacy"}))).unreadable == ()


GOOD = kube()


@pytest.mark.parametrize(
    "dump",
    [
        "",
        "\n\n",
        "# Generated by iptables-save v1.8.9\n",
        GOOD.replace("COMMIT\n", ""),
        GOOD.replace("*nat\n", ""),
        GOOD.replace(":KUBE-SVC-WEB - [0:0]\n", ""),
        GOOD.replace(":PREROUTING ACCEPT [0:0]\n", "").replace("-A PREROUTING -j KUBE-SERVICES\n", ""),
        GOOD + GOOD,
        GOOD.replace("-A KUBE-SVC-WEB", "-I KUBE-SVC-WEB"),
        GOOD.replace("*nat", "*nat\n*nat"),
        GOOD.replace("*nat", "*nax"),
        "Permission denied (you must be root)",
        GOOD.encode().decode("utf-16", errors="replace"),
    ],
)
def test_garbage_is_unreadable(dump):
    facts = parse(dump)
    assert facts.unreadable
    assert facts.routes == ()


def test_cut_short_anywhere_inside_of_a_table_is_unreadable():
    end = GOOD.index("COMMIT\n") + len("COMMIT")
    for at in range(end):
        assert parse(GOOD[:at]).unreadable, GOOD[:at]
