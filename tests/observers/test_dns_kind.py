"""Kind ``dns`` asks a server over UDP and TCP, and takes neither silence nor a guess for an answer."""

from __future__ import annotations

import asyncio

import dns.message
import dns.rrset
import pytest

from tidegate import vtime
from tidegate.kube.errors import Unreachable
from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import Epoch
from tidegate.observers.dns import DnsServers
from tidegate.observers.external import Fencing, Question, Replica, Spec, Where

POD = Endpoint("10.0.0.1")
QUESTION = Question((POD, Endpoint("fd00::1")), "main", Epoch("main", 7), 2.0, ("demo/peers",))
SOA = "ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 30"
AT = ("127.16.1.1", 1053)


def observer(**options):
    return DnsServers(Spec("dns", Where(addresses=("127.16.1.1:1053",)), {"keepSeconds": 0, **options}, "$"))


class Server(asyncio.DatagramProtocol):
    """Answers like a CoreDNS without pods and a fence at 7; ``how(message, by)`` may change or swallow an answer."""

    def __init__(self, how=lambda message, by: message, records=()):
        self.how, self.records, self.asked = how, dict(records), []

    async def up(self, udp=True, tcp=True, at=AT):
        loop = asyncio.get_running_loop()
        if udp:
            await loop.create_datagram_endpoint(lambda: self, local_addr=at)
        if tcp:
            await asyncio.start_server(self.stream, *at)
        return self

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        answer = self.answer(data, "udp")
        if answer is not None:
            self.transport.sendto(answer, addr)

    async def stream(self, reader, writer):
        query = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
        answer = self.answer(query, "tcp")
        if answer is None:
            await asyncio.sleep(60)
        writer.write(len(answer).to_bytes(2) + answer)
        writer.close()

    def answer(self, data, by):
        query = dns.message.from_wire(data)
        name, kind = str(query.question[0].name), dns.rdatatype.to_text(query.question[0].rdtype)
        self.asked.append((by, kind, name, bool(query.ednsflags & dns.flags.DO), bool(query.flags & dns.flags.CD)))
        reply = dns.message.make_response(query)
        if kind == "SRV":
            at = Epoch("main", 7).endpoint4()
            reply.answer.append(dns.rrset.from_text(name, 30, "IN", "SRV", f"0 1 {at.port} e.example."))
            reply.additional.append(dns.rrset.from_text("e.example.", 30, "IN", "A", at.address))
        elif (name, kind) in self.records:
            reply.answer.append(dns.rrset.from_text(name, 30, "IN", kind, *self.records[name, kind]))
        else:
            reply.set_rcode(dns.rcode.NXDOMAIN)
            reply.authority.append(dns.rrset.from_text("cluster.local.", 30, "IN", "SOA", SOA))
        changed = self.how(reply, by)
        return changed if changed is None or isinstance(changed, bytes) else changed.to_wire()


def told(server, question=QUESTION, asks=1, **up):
    async def story():
        await server.up(**up)
        kind = observer()
        for _ in range(asks - 1):
            await kind.ask(Replica("r", "127.16.1.1:1053"), question)
        return await kind.ask(Replica("r", "127.16.1.1:1053"), question)

    return vtime.run(story(), limit_seconds=60)


def test_the_fence_is_read_first_then_both_families_of_every_service():
    server = Server()
    facts = told(server)
    assert facts.fence == (Epoch("main", 7),) and not facts.unreadable and not facts.routes
    assert [(kind, name) for _, kind, name, _, _ in server.asked] == [
        ("SRV", "_fence._tcp.tidegate-dns-main.tidegate-system.svc.cluster.local."),
        ("A", "peers.demo.svc.cluster.local."),
        ("AAAA", "peers.demo.svc.cluster.local."),
    ]
    assert 30.0 < facts.linger_seconds < 31.0 and DnsServers.fencing is Fencing.DOUBLE


def test_a_record_of_either_family_is_a_route():
    peers = "peers.demo.svc.cluster.local."
    facts = told(Server(records={(peers, "A"): ["10.0.0.9"], (peers, "AAAA"): ["fd00::1"]}))
    assert facts.routes_to(Endpoint("fd00::1")) and not facts.routes_to(POD)


def truncated(message, by):
    if by == "udp":
        message.answer.clear()
        message.flags |= dns.flags.TC
    return message


@pytest.mark.parametrize(
    "server",
    [Server(truncated), Server(lambda message, by: message if by == "tcp" else None)],
    ids=["truncated", "lost"],
)
def test_what_does_not_come_by_udp_comes_by_tcp(server):
    facts = told(server)
    assert facts.fence and not facts.unreadable
    assert {by for by, *_ in server.asked} == {"udp", "tcp"}


def test_a_server_that_listens_to_tcp_alone_is_heard():
    assert told(Server(), udp=False).fence


def test_one_datagram_lost_is_asked_for_again():
    lost = []

    def first_is_lost(message, by):
        return message if lost or lost.append(1) else None

    assert told(Server(first_is_lost), tcp=False).fence


def test_a_guess_at_an_answer_is_passed_over_and_the_real_one_is_heard():
    class Guessing(Server):
        def datagram_received(self, data, addr):
            guess = dns.message.make_response(dns.message.from_wire(data))
            guess.id ^= 1
            self.transport.sendto(guess.to_wire(), addr)
            super().datagram_received(data, addr)

    assert not told(Guessing()).unreadable


@pytest.mark.parametrize(
    ("server", "up"),
    [(Server(lambda message, by: None), {}), (Server(), {"udp": False, "tcp": False})],
    ids=["silent", "not there"],
)
def test_no_answer_is_unreachable(server, up):
    with pytest.raises(Unreachable, match=r"127\.16\.1\.1:1053"):
        told(server, **up)


@pytest.mark.parametrize("body", [b"\0" * 40, b"", None])
def test_an_answer_over_tcp_that_is_none_is_unknown(body):
    def how(message, by):
        return body if by == "tcp" else truncated(message, by)

    if body is None:
        with pytest.raises(Unreachable):
            told(Server(how))
    else:
        assert told(Server(how)).unreadable


def test_a_failing_server_is_unreadable_by_name():
    def failing(message, by):
        message.set_rcode(dns.rcode.SERVFAIL)
        return message

    facts = told(Server(failing))
    assert "it answers SERVFAIL" in str(facts.unreadable[0]) and not facts.fence


def test_while_a_later_epoch_may_show_the_fence_is_asked_for_another_way_each_time():
    """A cache keeps answers by name, type, DO and CD bit: asking the same way again would tell nothing new."""
    later = Question(QUESTION.endpoints, "main", Epoch("main", 9), 2.0)
    server = Server()
    told(server, later, asks=8)
    assert len({one[1:] for one in server.asked}) == 8
    server = Server()
    told(server, Question(QUESTION.endpoints, "main", Epoch("main", 7), 2.0), asks=8)
    assert len({one[1:] for one in server.asked}) == 1, "nothing later is there to be seen: no way is used up"


def service(**spec):
    return {"metadata": {"name": "x", "namespace": "demo"}, "spec": spec}


@pytest.mark.parametrize(
    ("services", "is_concerned"),
    [
        ({}, False),
        ({"demo/x": service(clusterIP="10.96.0.1")}, False),
        ({"demo/x": service(clusterIP="None")}, True),
        ({"demo/x": None}, True),
        ({"demo/x": service(clusterIP="None", publishNotReadyAddresses=True)}, False),
        ({"demo/x": service(clusterIP="10.96.0.1"), "demo/y": service(clusterIP="None")}, True),
    ],
)
def test_pods_of_headless_services_are_its_concern(services, is_concerned):
    assert observer().concerns(Replica("r", ""), services) is is_concerned
    assert observer(names=["db.example.org"]).concerns(Replica("r", ""), services)


@pytest.mark.parametrize("options", [{"zone": "a..b"}, {"names": ["x" * 70]}, {"keepSeconds": -1}, {"ttl": 3}])
def test_options_that_cannot_be_are_errors_that_name_their_place(options):
    with pytest.raises(ValueError, match=r"\$"):
        observer(**options)


def test_names_of_ones_own_are_asked_too():
    server = Server(records={("db.example.org.", "A"): ["10.0.0.1"]})

    async def story():
        await server.up()
        return await observer(names=["db.example.org"]).ask(Replica("r", "127.16.1.1:1053"), QUESTION)

    assert vtime.run(story()).routes_to(POD)


@pytest.mark.realtime
async def test_on_real_sockets_of_both_families_too():
    for host, spelled in (("127.0.0.1", "127.0.0.1:15353"), ("::1", "[::1]:15353")):
        await Server(truncated).up(at=(host, 15353))
        assert (await observer().ask(Replica("r", spelled), QUESTION)).fence == (Epoch("main", 7),)
