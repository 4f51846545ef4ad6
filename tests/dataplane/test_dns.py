"""A DNS server's answers: what leads to a pod, what epoch shows, and that nothing hostile or broken reads as clean."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.dataplane.dns import Asked, encode, is_answer_to, is_truncated, parse
from tidegate.model.dns import fence_domains, service_domain
from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import Epoch

POD, OTHER = Endpoint("10.0.0.1"), Endpoint("10.0.0.11")
NAME = service_domain("demo/peers", "cluster.local")
ASKED = Asked(NAME, "A", 7)
FENCE = Asked(fence_domains("main", "cluster.local")[0], "SRV", 9, is_fence=True)
SOA = "ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 30"


def reply(asked, *records, rcode=dns.rcode.NOERROR, authority=(), additional=(), **changed):
    """The bytes of an answer; a record is (owner, ttl, type, data...)."""
    message = dns.message.make_response(dns.message.from_wire(encode(changed.pop("question", asked))))
    message.id = changed.pop("number", asked.number)
    message.set_rcode(rcode)
    message.flags |= changed.pop("flags", 0)
    for section, given_ in (
        (message.answer, records),
        (message.authority, authority),
        (message.additional, additional),
    ):
        for owner, ttl, kind, *data in given_:
            section.append(dns.rrset.from_text(owner, ttl, "IN", kind, *data))
    return message.to_wire()


def none(asked=ASKED, rcode=dns.rcode.NXDOMAIN, ttl=30, zone="cluster.local."):
    return reply(asked, rcode=rcode, authority=[(zone, ttl, "SOA", SOA)])


def fence(number, asked=FENCE, ttl=30, families=(4,)):
    shown = [Epoch("main", number).endpoint4(), Epoch("main", number).endpoint6()]
    shown = [one for family, one in zip((4, 6), shown, strict=True) if family in families]
    owners = [f"e{index}.{asked.domain.removeprefix('_fence._tcp.')}" for index, _ in enumerate(shown)]
    srv = [f"0 50 {one.port} {owner}" for one, owner in zip(shown, owners, strict=True)]
    glue = [
        (owner, ttl, "AAAA" if ":" in one.address else "A", one.address)
        for one, owner in zip(shown, owners, strict=True)
    ]
    return reply(asked, (asked.domain, ttl, "SRV", *srv), additional=glue)


def test_addresses_are_routes_and_the_longest_ttl_is_told():
    facts = parse([(ASKED, reply(ASKED, (NAME, 12, "A", "10.0.0.1", "10.0.0.3")))])
    assert facts.routes_to(POD) and not facts.routes_to(OTHER) and not facts.unreadable
    assert (facts.linger_seconds, facts.routes[0].kept_seconds) == (12.0, 12.0)
    assert facts.routes_to(Endpoint("10.0.0.1", 8080, "UDP")), "a name leads to every port"


@pytest.mark.parametrize("rcode", [dns.rcode.NXDOMAIN, dns.rcode.NOERROR])
def test_there_is_none_counts_with_the_soa_of_a_zone_above_and_is_kept_for_its_minimum(rcode):
    facts = parse([(ASKED, none(rcode=rcode, ttl=300))])
    assert not facts.routes and not facts.unreadable and facts.linger_seconds == 30.0


@pytest.mark.parametrize("families", [(4,), (6,), (4, 6)])
def test_the_fence_shows_its_epoch_by_address_and_port_together(families):
    number = 3 * 65535 + 17
    facts = parse([(FENCE, fence(number, families=families))])
    assert facts.fence == (Epoch("main", number),) * len(families) and not facts.unreadable


def test_a_fence_that_is_not_there_leaves_weak_evidence():
    facts = parse([(FENCE, none(FENCE)), (ASKED, none())])
    assert facts.fence == () and not facts.unreadable and not facts.routes


def torn(number, port):
    at, owner = Epoch("main", number).endpoint4(), f"e.{FENCE.domain}"
    return reply(FENCE, (FENCE.domain, 30, "SRV", f"0 50 {port} {owner}"), additional=[(owner, 30, "A", at.address)])


HOSTILE = {
    "nothing": b"",
    "no message": b"\x00\x07hello, this is not a message",
    "a header alone": reply(ASKED)[:12],
    "cut in the middle": reply(ASKED, (NAME, 30, "A", "10.0.0.3"))[:-3],
    "more than a message": none() + b"x",
    "another number": reply(ASKED, number=8, rcode=dns.rcode.NXDOMAIN, authority=[("cluster.local.", 30, "SOA", SOA)]),
    "a question sent back": encode(ASKED),
    "another name": none(Asked("peers.other.svc.cluster.local.", "A", 7)),
    "another type": none(Asked(NAME, "AAAA", 7)),
    "server failure": reply(ASKED, rcode=dns.rcode.SERVFAIL),
    "refused": reply(ASKED, rcode=dns.rcode.REFUSED),
    "truncated": reply(ASKED, flags=dns.flags.TC),
    "none, says nobody": reply(ASKED, rcode=dns.rcode.NXDOMAIN),
    "nothing, says nobody": reply(ASKED),
    "none, says another zone": none(zone="example.org."),
    "none, and an answer": reply(ASKED, (NAME, 30, "A", "10.0.0.3"), rcode=dns.rcode.NXDOMAIN),
    "an alias that leads elsewhere": reply(ASKED, (NAME, 30, "CNAME", "web.example.org.")),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_no_answer_to_the_question_is_unreadable(what):
    facts = parse([(ASKED, HOSTILE[what])])
    assert facts.unreadable and not facts.routes and NAME in str(facts.unreadable[0])


@pytest.mark.parametrize(
    "body",
    [
        reply(FENCE, (FENCE.domain, 30, "SRV", f"0 50 1 e.{FENCE.domain}")),
        torn(5, 0),
        reply(FENCE, (FENCE.domain, 30, "SRV", f"0 50 1 {NAME}"), additional=[(NAME, 30, "A", "10.0.0.1")]),
        reply(FENCE, (NAME, 30, "SRV", f"0 50 6 e.{NAME}"), additional=[(f"e.{NAME}", 30, "A", "198.18.0.0")]),
    ],
    ids=["no address", "no port", "no epoch", "another owner"],
)
def test_a_fence_that_shows_no_epoch_is_unreadable(body):
    facts = parse([(FENCE, body)])
    assert facts.unreadable and not facts.fence


def test_a_pods_address_counts_under_whatever_name_and_in_the_additional_section_too():
    alias = reply(
        ASKED, (NAME, 30, "CNAME", "x.demo.svc.cluster.local."), ("x.demo.svc.cluster.local.", 5, "A", "10.0.0.1")
    )
    assert parse([(ASKED, alias)]).routes_to(POD)
    extra = reply(ASKED, (NAME, 30, "A", "10.0.0.3"), additional=[("y.example.org.", 5, "A", "10.0.0.1")])
    assert parse([(ASKED, extra)]).routes_to(POD)


def test_a_datagram_with_another_number_is_passed_over_and_truncation_is_seen():
    assert is_answer_to(ASKED, none()) and not is_answer_to(ASKED, HOSTILE["another number"])
    assert not is_answer_to(ASKED, encode(ASKED)), "no answer: the question itself"
    assert is_truncated(HOSTILE["truncated"]) and not is_truncated(none()) and not is_truncated(b"\xff\xff\xff")


@given(st.binary(max_size=80), st.integers(0, 79))
def test_bytes_of_any_kind_never_read_as_clean(noise, at):
    """Garbage, and a good "there is none" with bytes changed: unreadable, or the same answer still."""
    good = none()
    for body in (noise, good[:at] + noise + good[at + len(noise) :]):
        facts = parse([(ASKED, body)])
        assert facts.unreadable or (
            not facts.routes and is_answer_to(ASKED, body) and b"\x07cluster\x05local" in body.lower()
        )


def test_a_name_that_is_none_is_an_error():
    with pytest.raises(ValueError, match="no domain name"):
        encode(Asked("a" * 70 + ".example.", "A", 1))
