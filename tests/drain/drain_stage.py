"""The stage on which drain tests play: short ways to make facts and events, and the transcript language.

A transcript is a story: comment lines, one event a line (instant, then words), and below it, indented, what the drain
made of it. ``pytest --rewrite-golden`` rewrites the indented lines.
"""

from __future__ import annotations

from tidegate.dataplane.facts import Facts, Route, Tracked, Unreadable
from tidegate.dataplane.sockets import Quiet, Socket
from tidegate.drain import (
    Acknowledgement,
    Drain,
    EventError,
    Mode,
    Policy,
    State,
    acknowledge,
    assumed,
    begin,
    step,
    unreachable,
    waiting_for,
)
from tidegate.drain.event import (
    Acknowledged,
    Bypassed,
    Cut,
    DeadlinePassed,
    Event,
    FenceWritten,
    Gone,
    ObserversListed,
    Refused,
    Released,
    Restored,
    Resumed,
    SocketsRead,
    SourceClean,
    SourceDirty,
    Tombstoned,
)
from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import Epoch

INSTALL = "k3f9"
POD = "demo/echo-1"
ENDPOINT = Endpoint("10.244.1.11", 8080)
OTHER = Endpoint("10.244.1.12", 8080)
CLIENT = Endpoint("10.244.2.9", 41000)


def epoch(number: int) -> Epoch:
    return Epoch(INSTALL, number)


def facts(
    node: str = "node-1", fence: int | None = 7, routed: bool = False, opening: bool = False, bad: str = ""
) -> Facts:
    """What a node's dump says, in the four respects that matter."""
    endpoints = (ENDPOINT, OTHER) if routed else (OTHER,)
    return Facts(
        source=node,
        dump="a dump",
        routes=(Route("cluster-ip", "10.96.1.1", 80, "TCP", endpoints, "demo/echo:http"),),
        fence=() if fence is None else (epoch(fence),),
        tracked=(Tracked("TCP", "SYN_SENT", CLIENT, Endpoint("10.96.1.1", 80), ENDPOINT),) if opening else (),
        unreadable=(Unreadable(bad),) if bad else (),
    )


def answer(asked: int, node: str = "node-1", **says: object) -> Acknowledgement:
    return acknowledge(facts(node, **says), (ENDPOINT,), epoch(asked))


def busy(count: int) -> Quiet:
    return Quiet(tuple(Socket(ENDPOINT, Endpoint("10.244.2.9", 41000 + n), "ESTABLISHED", 0, 1) for n in range(count)))


def read_event(line: str, drain: Drain) -> Event:
    """``0.05 node-1 shows fence 7`` -> an event."""
    instant, _, rest = line.partition(" ")
    at = float(instant)
    verb, _, words = rest.partition(" ")
    simple = {
        "cut": Cut, "clean": SourceClean, "tombstone": Tombstoned, "deadline": DeadlinePassed, "resume": Resumed,
        "restore": Restored, "release": Released, "gone": Gone,
    }  # fmt: skip
    if verb in simple and not words:
        return simple[verb](at=at)
    match verb:
        case "dirty":
            return SourceDirty(at=at, reasons=tuple(words.split("; ")))
        case "bypass":
            return Bypassed(at=at, reason=words)
        case "refuse":
            return Refused(at=at, reason=words)
        case "fence":
            number, _, sent = words.partition(" sent ")
            return FenceWritten(at=at, epoch=epoch(int(number)), sent_at=float(sent or at))
        case "observers":
            names, _, suspected = words.partition(", suspected: ")
            return ObserversListed(at=at, observers=tuple(names.split()), suspected=(suspected,) if suspected else ())
        case "sockets":
            quiet = Quiet(unreadable=(Unreadable(words),)) if not words.isdigit() else busy(int(words))
            return SocketsRead(at=at, quiet=quiet)
        case _:
            return Acknowledged(at=at, acknowledgement=read_answer(verb, words, drain))


def read_answer(node: str, words: str, drain: Drain) -> Acknowledgement:
    """``shows fence 7 and the route``, ``shows no fence``, ``unreachable: why``, ``unreadable: why``..."""
    asked = drain.epoch or epoch(0)
    kind, _, why = words.partition(": ")
    if kind == "unreachable":
        return unreachable(node, asked, why, 0.0)
    if kind == "assumed":
        return assumed(node, asked, why, 0.0)
    if kind == "unreadable":
        return acknowledge(facts(node, bad=why), (ENDPOINT,), asked)
    shown, *rest = words.removeprefix("shows ").split(" and ")
    assert set(rest) <= {"the route", "a handshake"}, words
    fence = None if shown == "no fence" else int(shown.removeprefix("fence "))
    dump = facts(node, fence, routed="the route" in rest, opening="a handshake" in rest)
    return acknowledge(dump, (ENDPOINT,), asked)


def play(script: str) -> str:
    """The script with what the drain made of each line below it. What was there before is dropped."""
    drain: Drain | None = None
    lines = []
    for line in script.splitlines():
        if line.startswith("  "):
            continue
        lines.append(line)
        if line.startswith("#") or not line.strip():
            continue
        if line.startswith("begin "):
            _, mode, *rest = line.split(" ", 2)
            policy = Policy.GRACEFUL if rest == ["graceful"] else Policy.ABRUPT
            forced = rest[0].removeprefix("forced: ") if rest and rest != ["graceful"] else ""
            drain = begin(POD, Mode(mode), policy, forced)
            continue
        assert drain is not None, "a transcript starts with: begin gate|label"
        drain = _play_line(line, drain, lines)
    return "\n".join(lines) + "\n"


def _play_line(line: str, drain: Drain, lines: list[str]) -> Drain:
    try:
        after = step(drain, read_event(line, drain))
    except EventError as error:
        lines.append(f"  ERROR {error}")
        return drain
    moved = f"{drain.state.name} -> {after.state.name}" if after.state is not drain.state else f"{after.state.name}"
    lines.append(f"  {moved}")
    if after.state not in (State.DRAINED, State.OVERDUE, State.BYPASSED, State.RELEASED):
        lines.extend(f"    waiting for: {reason}" for reason in waiting_for(after))
    if after.result is not None and after.result != drain.result:
        lines.append(f"    {after.result} ({after.result.seconds} s, epoch {after.result.epoch})")
    elif drain.result is not None and after.result is None:
        lines.append("    the result is taken back")
    lines.extend(f"    regression: {seen}" for seen in after.regressions[len(drain.regressions) :])
    return after
