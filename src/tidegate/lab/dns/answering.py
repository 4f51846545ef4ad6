"""From a question's bytes to the answer's, through CoreDNS's cache (plugin/cache): by name, type, DO and CD bit, for as
long as the answer's least TTL, counted down, 5 s at least. Wire format by dnspython (the ``dns`` extra)."""

from __future__ import annotations

from dataclasses import dataclass, field

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from tidegate.lab.dns.records import ZONE, Record, Records, Told

TTL_SECONDS = 30
"""kubeadm's Corefile: ``ttl 30``. The plugin's own default is 5."""
CACHE_SECONDS_MIN = 5
DATAGRAM_BYTES = 512
_SOA = f"ns.dns.{ZONE} hostmaster.{ZONE} 1 7200 1800 86400 {TTL_SECONDS}"


@dataclass(slots=True)
class Answering:
    """One server's answers. ``cache_seconds``: the most a cached answer is kept (kubeadm: 30), 0 for no cache."""

    records: Records
    cache_seconds: int = 30
    _kept: dict[tuple[str, str, bool, bool], tuple[float, Told]] = field(default_factory=dict)

    def answer(self, query: bytes, now: float, *, is_datagram: bool) -> bytes | None:
        """None for what is no question: a server says nothing to that."""
        try:
            asked = dns.message.from_wire(query)
        except (dns.exception.DNSException, ValueError):
            return None
        if asked.flags & dns.flags.QR or len(asked.question) != 1:
            return None
        reply = dns.message.make_response(asked)
        reply.flags |= dns.flags.AA
        [question] = asked.question
        kind = dns.rdatatype.to_text(question.rdtype)
        is_dnssec, is_unchecked = bool(asked.ednsflags & dns.flags.DO), bool(asked.flags & dns.flags.CD)
        told, ttl = self._told((str(question.name).lower(), kind, is_dnssec, is_unchecked), now)
        if told is None:
            reply.set_rcode(dns.rcode.REFUSED)  # nothing is forwarded from a lab
        else:
            _fill(reply, told, ttl)
        return _packed(reply, asked, is_datagram)

    def _told(self, key: tuple[str, str, bool, bool], now: float) -> tuple[Told | None, int]:
        """The answer and its TTL, from the cache where it has one."""
        until, kept = self._kept.get(key, (0.0, None))
        if kept is not None and now < until:
            return kept, int(until - now)
        told = self.records.look_up(key[0], key[1])
        if told is not None and self.cache_seconds:
            ttl = max(min(TTL_SECONDS, self.cache_seconds), CACHE_SECONDS_MIN)
            self._kept[key] = (now + ttl, told)
            return told, ttl
        return told, TTL_SECONDS


def _fill(reply: dns.message.Message, told: Told, ttl: int) -> None:
    if not told.answers:
        reply.set_rcode(dns.rcode.NOERROR if told.exists else dns.rcode.NXDOMAIN)
        reply.authority.append(dns.rrset.from_text(ZONE, ttl, "IN", "SOA", _SOA))
    _add(reply.answer, told.answers, ttl)
    _add(reply.additional, told.additional, ttl)


def _add(section: list[dns.rrset.RRset], records: tuple[Record, ...], ttl: int) -> None:
    by_name: dict[tuple[str, str], list[str]] = {}
    for one in records:
        by_name.setdefault((one.owner, one.kind), []).append(one.data)
    section += [dns.rrset.from_text_list(owner, ttl, "IN", kind, data) for (owner, kind), data in by_name.items()]


def _packed(reply: dns.message.Message, asked: dns.message.Message, is_datagram: bool) -> bytes:
    """What does not fit a datagram comes empty, with TC: the client asks again over TCP."""
    bytes_max = max(asked.payload, DATAGRAM_BYTES) if is_datagram else 65_535
    try:
        return reply.to_wire(max_size=bytes_max)
    except dns.exception.TooBig:
        for section in (reply.answer, reply.authority, reply.additional):
            section.clear()
        reply.flags |= dns.flags.TC
        return reply.to_wire()
