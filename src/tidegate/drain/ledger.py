"""The ledger: what is kept of a drain once it is over. Its course of events in, one ``Entry`` out; a line and back.

One line for each retirement, written at its conclusion; later lines with the same ``id`` amend it (a regression seen
after the release, a proof that came late, a hold that died as it was answered). Reading is forward compatible: keys
that are not known are passed over, keys that are missing have their defaults; what cannot be read at all is counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from types import MappingProxyType

import msgspec

from tidegate.dataplane.sockets import Quiet
from tidegate.drain.acknowledgement import LETTING_GO, Acknowledgement, Verdict
from tidegate.drain.event import Acknowledged, Cut, Event, SocketsRead
from tidegate.drain.progress import Drain
from tidegate.model.names import DrainResult

FORMAT = 1
CLIENTS_MAX = 5
TURNS_MAX = 8
ANSWERS_MAX = 200
"""Of a cluster with more nodes than this, those that did not let go and the slowest are kept by name."""
REGRESSIONS_MAX = 20
DETAIL_MAX = 300
LEFT = "left"
"""What stands for the verdict of an observer that was heard, and is none any more at the conclusion."""


class Turn(msgspec.Struct, frozen=True):
    """What an observer said from an instant on. ``seconds``: since the cut."""

    seconds: float
    verdict: str
    detail: str


class Answer(msgspec.Struct, frozen=True):
    """One observer's last word. ``seconds``: from the cut until it had let go for good, None if it never did.

    ``evidence`` names the dump and ``at`` its own instant (RFC 3339); ``digest`` is a hash of observer, dump, instant
    and deciding entry, for whoever keeps dumps. ``history`` has every turn of one that did not let go at once.
    """

    observer: str
    verdict: str
    seconds: float | None = None
    evidence: str = ""
    at: str = ""
    detail: str = ""
    digest: str = ""
    history: tuple[Turn, ...] = ()


class InFlight(msgspec.Struct, frozen=True):
    """Connections to the pod at one instant. ``count`` None: not known, ``problem`` says why. ``clients``: the first
    five, without their ports."""

    count: int | None = None
    clients: tuple[str, ...] = ()
    problem: str = ""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One retirement. Instants are RFC 3339; ``seconds`` are from the cut to the conclusion.

    ``amends``: this line only has the keys that changed (result, reason, stragglers, regressions). ``result`` is a
    word of ``Ending``, or ``interrupted`` or ``failed`` where a process came to no result. ``began``: when the verb
    was first asked for; ``cut`` is empty for what was never cut. ``stamp``: who wrote the line (``node/NAME``, or
    nothing for a command line).
    """

    id: str
    format: int = FORMAT
    amends: bool = False
    at: str = ""
    stamp: str = ""
    cluster: str = ""
    verb: str = ""
    mode: str = ""
    by: str = ""
    token: str = ""
    why: str = ""
    uid: str = ""
    namespace: str = ""
    pod: str = ""
    node: str = ""
    services: tuple[str, ...] = ()
    began: str = ""
    cut: str = ""
    deadline: str = ""
    on_deadline: str = ""
    policy: str = ""
    epoch: str = ""
    answers: tuple[Answer, ...] = ()
    answers_left_off: int = 0
    suspected: tuple[str, ...] = ()
    connections_at_cut: InFlight = InFlight()
    connections_at_end: InFlight = InFlight()
    probe: str = ""
    activity: str = ""
    result: str = ""
    reason: str = ""
    stragglers: tuple[str, ...] = ()
    seconds: float = 0.0
    regressions: tuple[str, ...] = ()

    @property
    def slowest(self) -> Answer | None:
        """Who let go last, or never; None without an observer."""
        return max(self.answers, key=lambda one: (one.seconds is None, one.seconds or 0.0), default=None)


@dataclass(frozen=True, slots=True)
class Subject:
    """Who does what to which pod: what is known before the first event."""

    verb: str
    mode: str = ""
    token: str = ""
    by: str = ""
    why: str = ""
    stamp: str = ""
    cluster: str = ""
    uid: str = ""
    namespace: str = ""
    pod: str = ""
    node: str = ""
    services: tuple[str, ...] = ()
    began: str = ""
    deadline: str = ""
    on_deadline: str = ""
    probe: str = ""


@dataclass(frozen=True, slots=True)
class Course:
    """What was heard of a drain, over all its rounds. Instants are those of its events (a clock that never steps
    back). ``said``: each observer's turns, oldest first."""

    cut_at: float | None = None
    said: Mapping[str, tuple[tuple[float, Acknowledgement], ...]] = field(default_factory=lambda: MappingProxyType({}))
    latest: Mapping[str, Acknowledgement] = field(default_factory=lambda: MappingProxyType({}))
    at_cut: Quiet | None = None
    at_end: Quiet | None = None


def hear(course: Course, drain: Drain, event: Event) -> Course:
    """``course`` with one more event; ``drain`` is what that event has led to."""
    match event:
        case Cut() if course.cut_at is None:
            return replace(course, cut_at=event.at)
        case SocketsRead():
            return replace(course, at_end=event.quiet)
        case Acknowledged() if drain.acknowledgements.get(event.acknowledgement.observer) is event.acknowledgement:
            return _hear_answer(course, event)
        case _:
            return course


def _hear_answer(course: Course, event: Acknowledged) -> Course:
    answer = event.acknowledgement
    turns = course.said.get(answer.observer, ())
    latest = {**course.latest, answer.observer: answer}
    if turns:
        last = turns[-1][1]
        # A new round asks for a later epoch: to be behind that takes nothing back.
        is_behind = last.verdict in LETTING_GO and answer.verdict is Verdict.PENDING and last.epoch != answer.epoch
        if is_behind or (last.verdict is answer.verdict and last.verdict in LETTING_GO):
            return replace(course, latest=MappingProxyType(latest))
    if turns and (turns[-1][1].verdict, turns[-1][1].evidence.entry) == (answer.verdict, answer.evidence.entry):
        return replace(course, latest=MappingProxyType(latest))
    said = {**course.said, answer.observer: (*turns, (event.at, answer))[-TURNS_MAX:]}
    return replace(course, said=MappingProxyType(said), latest=MappingProxyType(latest))


def entry_of(
    subject: Subject, course: Course, drain: Drain | None, result: DrainResult, clock: tuple[float, float]
) -> Entry:
    """The retirement as it is kept. ``clock``: now, as the events' clock has it and in seconds since 1970."""
    now, wall = clock

    def instant(at: float) -> str:
        return as_text(wall + at - now)

    answers = _answers(course, drain)
    cut_at = course.cut_at
    return Entry(
        id=identity(subject),
        at=as_text(wall),
        **asdict(subject),
        cut="" if cut_at is None else instant(cut_at),
        policy="" if drain is None else drain.policy.value,
        epoch="" if drain is None or drain.epoch is None else str(drain.epoch),
        answers=answers[:ANSWERS_MAX],
        answers_left_off=max(0, len(answers) - ANSWERS_MAX),
        suspected=() if drain is None else drain.suspected,
        connections_at_cut=in_flight(course.at_cut),
        connections_at_end=in_flight(course.at_end),
        activity=_word(subject, course.at_end),
        result=result.result.value,
        reason=result.reason,
        stragglers=result.stragglers[:ANSWERS_MAX],
        seconds=result.seconds if cut_at is None else round(now - cut_at, 3),
        regressions=() if drain is None else drain.regressions[:REGRESSIONS_MAX],
    )


def amendment(subject: Subject, result: DrainResult, regressions: tuple[str, ...], wall: float) -> Entry:
    """What is different since the entry was written."""
    return Entry(
        id=identity(subject),
        amends=True,
        at=as_text(wall),
        stamp=subject.stamp,
        uid=subject.uid,
        namespace=subject.namespace,
        pod=subject.pod,
        result=result.result.value,
        reason=result.reason,
        stragglers=result.stragglers[:ANSWERS_MAX],
        regressions=regressions[:REGRESSIONS_MAX],
    )


def identity(subject: Subject) -> str:
    """Of one run of one verb on one pod: a drain that is run again after its deadline has a line of its own."""
    text = "\n".join((subject.stamp, subject.uid, subject.token, subject.verb, subject.began))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _answers(course: Course, drain: Drain | None) -> tuple[Answer, ...]:
    """Those that did not let go first, then the slowest. One that is listed and never spoke is among them."""
    listed = (drain.observers if drain is not None else None) or tuple(sorted(course.latest))
    found = [_answer(course, name) for name in listed]
    found += [_left(_answer(course, name)) for name in sorted(course.said) if name not in listed]
    return tuple(sorted(found, key=lambda one: (one.seconds is not None, -(one.seconds or 0.0), one.observer)))


def _left(answer: Answer) -> Answer:
    """One that is no observer any more, its Node object was deleted say: its last word is the last of its turns."""
    last = answer.history or (Turn(answer.seconds or 0.0, answer.verdict, answer.detail),)
    detail = f"no observer any more; it had said {answer.verdict}: {answer.detail}"
    return msgspec.structs.replace(answer, verdict=LEFT, detail=detail[:DETAIL_MAX], history=last)


def _answer(course: Course, observer: str) -> Answer:
    answer, turns = course.latest.get(observer), course.said.get(observer, ())
    if answer is None or not turns:
        return Answer(observer, Verdict.PENDING.value, detail="has not answered")
    began = course.cut_at if course.cut_at is not None else turns[0][0]
    at, last = turns[-1]
    has_let_go = last.verdict in LETTING_GO and answer.verdict in (*LETTING_GO, Verdict.PENDING)
    evidence = answer.evidence
    identity_of_dump = f"{observer}\n{evidence.source}\n{evidence.at!r}\n{evidence.entry}"
    history = tuple(
        Turn(round(when - began, 3), one.verdict.value, one.evidence.entry[:DETAIL_MAX]) for when, one in turns
    )
    return Answer(
        observer=observer,
        verdict=answer.verdict.value,
        seconds=round(at - began, 3) if has_let_go else None,
        evidence=evidence.source,
        at=as_text(evidence.at) if evidence.at else "",
        detail=evidence.entry[:DETAIL_MAX],
        digest=hashlib.sha256(identity_of_dump.encode()).hexdigest()[:16],
        history=history if len(history) > 1 or not has_let_go else (),
    )


def in_flight(quiet: Quiet | None) -> InFlight:
    """The count and the first clients, by address only."""
    if quiet is None:
        return InFlight(problem="not read")
    if quiet.unreadable:
        return InFlight(problem="; ".join(map(str, quiet.unreadable))[:DETAIL_MAX])
    clients = tuple(dict.fromkeys(one.remote.address for one in quiet.live))
    return InFlight(len(quiet.live), clients[:CLIENTS_MAX])


def _word(subject: Subject, quiet: Quiet | None) -> str:
    """What the workload's own probe said last."""
    if not subject.probe or quiet is None:
        return ""
    return "; ".join(quiet.busy) or "idle"


def encode(entry: Entry) -> bytes:
    """One line, with its newline."""
    return msgspec.json.encode(entry) + b"\n"


def decode(line: bytes) -> Entry | None:
    """None for what is no entry: a line cut short, another's."""
    try:
        return msgspec.json.decode(line, type=Entry)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def merged(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Each retirement once, with what amends it, in the order of their conclusions. An amendment of a line that is
    not there any more stands alone: it says what went wrong."""
    found: dict[str, Entry] = {}
    for one in sorted(entries, key=lambda one: (one.amends, one.at)):
        known = found.get(one.id)
        if known is None or not one.amends:
            found[one.id] = one
            continue
        found[one.id] = msgspec.structs.replace(
            known,
            result=one.result or known.result,
            reason=one.reason,
            stragglers=one.stragglers,
            regressions=tuple(dict.fromkeys((*known.regressions, *one.regressions))),
        )
    return tuple(sorted(found.values(), key=lambda one: (one.at, one.id)))


def as_text(wall: float) -> str:
    """RFC 3339, to the millisecond."""
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
