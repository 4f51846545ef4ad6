"""ipvs: weight 0 takes no new connection; names are never told."""

from __future__ import annotations

import pytest

from tidegate.dataplane.frontends import Asking
from tidegate.dataplane.ipvs import parse
from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import Epoch

EPOCH = Epoch("k3f9", 41)
LISTED = f"""IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  10.96.0.9:1 rr
  -> {EPOCH.endpoint4()}            Masq    1      0          0
TCP  10.96.1.1:80 rr
  -> 10.244.1.11:8080             Masq    0      3          1
  -> 10.244.1.12:8080             Masq    1      0          0
UDP  10.96.1.3:53 rr
  -> 10.244.1.21:8080             Masq    1      0          0
TCP  [fd00:96::1]:80 rr
  -> [fd00:10::12]:8080           Masq    1      0          0
"""
SAVED = f"""-A -t 10.96.0.9:1 -s rr
-a -t 10.96.0.9:1 -r {EPOCH.endpoint4()} -m -w 1
-A -t 10.96.1.1:80 -s rr
-a -t 10.96.1.1:80 -r 10.244.1.11:8080 -m -w 0
-a -t 10.96.1.1:80 -r 10.244.1.12:8080 -m -w 1
-A -u 10.96.1.3:53 -s rr
-a -u 10.96.1.3:53 -r 10.244.1.21:8080 -m -w 1
-A -t [fd00:96::1]:80 -s rr
-a -t [fd00:96::1]:80 -r [fd00:10::12]:8080 -m -w 1
"""
PROC = """IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A600101:0050 rr
  -> 0AF4010C:1F90      Masq    1      0          0
"""
CUT, KEPT = Endpoint("10.244.1.11", 8080), Endpoint("10.244.1.12", 8080)


@pytest.mark.parametrize("dump", [LISTED, SAVED])
def test_a_server_of_weight_0_is_no_route(dump):
    facts = parse(dump, asking=Asking(fences={"10.96.0.9": "k3f9"}))
    assert facts.unreadable == ()
    assert not facts.routes_to(CUT)
    assert [str(route) for route in facts.routes_to(KEPT)] == ["virtual-server 10.96.1.1:80/TCP"]
    assert facts.routes_to(Endpoint("10.244.1.21", 8080, "UDP"))
    assert facts.routes_to(Endpoint("fd00:10::12", 8080))
    assert facts.fence == (EPOCH,)


def test_both_lists_say_the_same():
    assert parse(LISTED) == parse(SAVED)


def test_the_kernels_own_list_is_in_hexadecimal():
    facts = parse(PROC)
    assert [str(route) for route in facts.routes_to(KEPT)] == ["virtual-server 10.96.1.1:80/TCP"]


def test_persistence_keeps_known_clients_on_a_server_of_weight_0():
    dump = LISTED.replace("TCP  10.96.1.1:80 rr", "TCP  10.96.1.1:80 rr persistent 10800")
    assert "net.ipv4.vs.expire_quiescent_template" in str(parse(dump).unreadable[0])
    assert parse(dump, expires_quiescent=True).unreadable == ()


def test_asked_about_a_pod_the_fence_is_still_read():
    facts = parse(LISTED, asking=Asking(endpoints=(KEPT,), fences={"10.96.0.9": "k3f9"}))
    assert [route.address for route in facts.routes] == ["10.96.0.9", "10.96.1.1"]
    assert facts.fence == (EPOCH,)


@pytest.mark.parametrize(
    "dump",
    [
        "", "IP Virtual Server version 1.2.1 (size=4096)", LISTED.replace("TCP  10.96.1.1:80 rr", "TCP  web:http rr"),
        LISTED.replace("Masq    0 ", "Frob    0 "), LISTED + "FWM  1 rr\n", LISTED[: LISTED.index("Masq    0") + 6],
        SAVED.replace("-A -t 10.96.1.1:80 -s rr\n", ""), SAVED.replace(" -w 0", ""), SAVED + "-D -t 10.96.1.1:80\n",
    ],
)  # fmt: skip
def test_garbage_is_unreadable(dump):
    facts = parse(dump)
    assert facts.unreadable
    assert facts.routes == ()
