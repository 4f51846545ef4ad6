"""A DNS server's own answers, about Services and about the fence's headless twin.

Wire format by dnspython (the ``dns`` extra): compression, EDNS and hostile lengths are no place for code of our own.
What this file adds is distrust. An answer counts when it is one, to this very question, in class IN and not cut short;
"there is none" counts only with the SOA of a zone above the name (RFC 2308), or a broken forwarder would read as clean.

- Any address in the answer or the additional section counts as served, under whatever owner: a rewritten or aliased
  name leads there all the same.
- An epoch needs SRV: an address has 17 of its bits, the port the other 16. Both come in one answer, so from one moment.
- ``linger_seconds`` is the longest TTL in any of the answers: so long may others go on using what they were told.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tidegate.dataplane.facts import Facts, Route, Unreadable
from tidegate.model.endpoint import Endpoint, canonical
from tidegate.model.epoch import Epoch

if TYPE_CHECKING:
    from dns.message import Message

Kind = Literal["A", "AAAA", "SRV"]
EDNS_BYTES = 1232
"""What fits one datagram on any road (DNS flag day 2020); longer answers come truncated and are asked for over TCP."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One question: ``domain`` with its trailing dot, and the number its answer has to bear.

    ``is_fence``: its SRV records show the epoch. ``wants_dnssec`` (DO) and ``is_unchecked`` (CD) only make it another
    question to a cache.
    """

    domain: str
    kind: Kind
    number: int
    is_fence: bool = False
    wants_dnssec: bool = False
    is_unchecked: bool = False

    def __str__(self) -> str:
        return f"{self.kind} {self.domain}"


def encode(asked: Asked) -> bytes:
    """The question as a message. Raises ``ValueError`` for what is no domain name."""
    import dns.exception
    import dns.flags
    import dns.message

    try:
        query = dns.message.make_query(
            asked.domain, asked.kind, use_edns=0, payload=EDNS_BYTES, want_dnssec=asked.wants_dnssec, id=asked.number
        )
    except dns.exception.DNSException as error:
        raise ValueError(f"{asked.domain!r} is no domain name: {error}") from error
    query.flags |= dns.flags.CD if asked.is_unchecked else 0
    return query.to_wire()


def is_truncated(body: bytes) -> bool:
    """Whether the header says that more would have followed (TC). Anything shorter than a header is not."""
    return len(body) >= 12 and bool(body[2] & 0x02)


def is_answer_to(asked: Asked, body: bytes) -> bool:
    """Whether a datagram may be the answer at all: others are passed over, as a resolver does, not believed."""
    return len(body) >= 12 and int.from_bytes(body[:2]) == asked.number and bool(body[2] & 0x80)


def parse(answers: Iterable[tuple[Asked, bytes]], install: str = "main", *, source: str = "") -> Facts:
    """Facts of one server from its answers, in the order they were asked for: the fence first."""
    found = _Found(install)
    for asked, body in answers:
        try:
            found.add(asked, body)
        except ValueError as error:
            found.problems.append(Unreadable(str(error), str(asked)))
    return Facts(
        source,
        "dns answers",
        routes=tuple(found.routes),
        fence=tuple(found.epochs),
        unreadable=tuple(found.problems),
        linger_seconds=float(found.ttl_max),
    )


class _Found:
    """Collects what the answers say."""

    def __init__(self, install: str) -> None:
        self.routes: list[Route] = []
        self.epochs: list[Epoch] = []
        self.problems: list[Unreadable] = []
        self.ttl_max = 0
        self._install = install

    def add(self, asked: Asked, body: bytes) -> None:
        """Raises ``ValueError`` for what is no answer to ``asked``."""
        import dns.rdatatype

        message = _decoded(asked, body)
        sections = [*message.answer, *message.additional]
        self.ttl_max = max([self.ttl_max, *(rrset.ttl for rrset in sections)])
        if not any(rrset.rdtype == dns.rdatatype.from_text(asked.kind) for rrset in message.answer):
            self.ttl_max = max(self.ttl_max, _denied(asked, message))
        elif asked.is_fence:
            self.epochs += self._epochs(asked, message)
        if not asked.is_fence:
            addresses = dict.fromkeys(address for _, address in _addresses(message))
            to = tuple(Endpoint(address) for address in addresses)
            ttl = max((one.ttl for one in sections), default=0)
            self.routes += [Route(f"dns {asked}", "", 0, "TCP", to, kept_seconds=float(ttl))] if to else []

    def _epochs(self, asked: Asked, message: Message) -> list[Epoch]:
        import dns.name
        import dns.rdatatype

        glue = list(_addresses(message))
        shown: list[Epoch] = []
        for rrset in message.answer:
            if rrset.rdtype != dns.rdatatype.SRV or rrset.name != dns.name.from_text(asked.domain):
                raise ValueError(f"{rrset.name} {dns.rdatatype.to_text(rrset.rdtype)} beside the fence")
            for record in rrset:
                at = [address for owner, address in glue if owner == record.target]
                if not at:
                    raise ValueError(f"no address of {record.target} in the same answer")
                shown += [Epoch.of_endpoint(self._install, Endpoint(address, record.port)) for address in at]
        if len(shown) > 2:
            raise ValueError(f"{len(shown)} endpoints of the fence, one of each address family are ours")
        return shown


def _decoded(asked: Asked, body: bytes) -> Message:
    """Raises ``ValueError`` for anything but a whole answer to ``asked``."""
    import dns.exception
    import dns.flags
    import dns.message
    import dns.name
    import dns.opcode
    import dns.rcode
    import dns.rdataclass
    import dns.rdatatype

    try:
        message = dns.message.from_wire(body)
    except (dns.exception.DNSException, ValueError, IndexError) as error:
        raise ValueError(f"not a DNS message: {error or type(error).__name__}") from error
    if message.id != asked.number or not message.flags & dns.flags.QR or message.opcode() != dns.opcode.QUERY:
        raise ValueError("an answer to something else")
    wanted = (dns.name.from_text(asked.domain), dns.rdataclass.IN, dns.rdatatype.from_text(asked.kind))
    if [(one.name, one.rdclass, one.rdtype) for one in message.question] != [wanted]:
        raise ValueError("an answer to another question")
    if message.flags & dns.flags.TC:
        raise ValueError("cut short, over TCP too")
    if message.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        raise ValueError(f"it answers {dns.rcode.to_text(message.rcode())}")
    if message.rcode() == dns.rcode.NXDOMAIN and message.answer:
        raise ValueError("NXDOMAIN with an answer")
    if any(one.rdclass != dns.rdataclass.IN for one in (*message.answer, *message.authority, *message.additional)):
        raise ValueError("records of another class")
    return message


def _denied(asked: Asked, message: Message) -> int:
    """How long "there is none" may be kept, in seconds. Raises ``ValueError`` where no zone's owner says it."""
    import dns.name
    import dns.rdatatype

    if message.answer:
        raise ValueError(f"no {asked.kind} in the answer, but {message.answer[0].name} leads elsewhere")
    for rrset in message.authority:
        if rrset.rdtype == dns.rdatatype.SOA and dns.name.from_text(asked.domain).is_subdomain(rrset.name):
            return max(min(rrset.ttl, int(record.minimum)) for record in rrset)
    raise ValueError("it says there is none, without the SOA of a zone whose word that is")


def _addresses(message: Message) -> Iterable[tuple[object, str]]:
    """Every owner and address in the answer and the additional section."""
    import dns.rdatatype

    for rrset in (*message.answer, *message.additional):
        if rrset.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
            for record in rrset:
                yield rrset.name, canonical(record.address)
