"""Which silent nodes need not be waited for, and on whose word.

A node is dismissed by nothing that merely looks like its end: NotReady is a dead kubelet, and its kernel may forward
for years. Somebody has to say so: the out-of-service taint (KEP-2268), a word recorded by name (``tidegate vouch``), or
the installation's policy for standing stragglers. And a word stands in for silence only: a node whose agent answers is
judged by its answer, whatever was said of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from tidegate.drain.acknowledgement import Acknowledgement, Evidence, Verdict
from tidegate.model.decode import Malformed
from tidegate.model.names import VouchRecord, decode_vouch
from tidegate.model.node import OUT_OF_SERVICE, Node

Says = Literal["dead", "no-agent", "standing"]
StandingPolicy = Literal["hold", "except"]
DEAD, NO_AGENT = "dead", "no-agent"
SETTLE_SECONDS = 15.0
"""How long a node that nobody can witness is waited for (design: settle 15 s)."""


@dataclass(frozen=True, slots=True)
class Excuse:
    """Why a silent node is not waited for; ``standing``: only where the policy says so. ``word``: whose word it is."""

    says: Says
    word: str


def excuse_of(node: Node, now: datetime) -> Excuse | None:
    """What was said of ``node``, None for nothing. A word that cannot be read, or is out of date, excuses nobody, nor
    does one that it is dead where its kubelet lives: it came back, and its kernel forwards."""
    if node.is_out_of_service and not node.is_ready:
        return Excuse("dead", f"tainted {OUT_OF_SERVICE}")
    record = _vouched(node)
    said = (NO_AGENT,) if node.is_ready else (DEAD, NO_AGENT)
    if record is not None and record.says in said and not _is_past(record.until, now):
        until = f" until {record.until}" if record.until else ""
        word = f"{record.by} vouched at {record.at}{until}: {record.reason}"
        return Excuse("dead" if record.says == DEAD else "no-agent", word)
    ready = next((one for one in node.conditions if one.type == "Ready"), None)
    if ready is not None and ready.status != "True":
        since = "" if ready.since is None else f" since {ready.since.isoformat().replace('+00:00', 'Z')}"
        return Excuse("standing", f"NotReady{since} ({ready.reason or ready.status})")
    return None


def _vouched(node: Node) -> VouchRecord | None:
    try:
        return decode_vouch(node.annotations)
    except Malformed:
        return None


def _is_past(until: str, now: datetime) -> bool:
    if not until:
        return False
    try:
        return datetime.fromisoformat(until) <= now
    except (ValueError, TypeError):
        return True


def excused(answer: Acknowledgement, excuse: Excuse, policy: StandingPolicy, waited_seconds: float) -> Acknowledgement:
    """``answer`` with the word that stands in for a silence. ``waited_seconds``: since the epoch was sent.

    Any other answer is returned as it is.
    """
    if answer.verdict is not Verdict.UNREACHABLE:
        return answer
    silence = answer.evidence.entry
    match excuse.says:
        case "standing" if policy == "hold":
            return _saying(answer, Verdict.UNREACHABLE, answer.evidence.source, f"{excuse.word}, and {silence}")
        case "no-agent" if waited_seconds < SETTLE_SECONDS:
            said = f"{excuse.word}: {SETTLE_SECONDS:g} s of settle time"
            return _saying(answer, Verdict.PENDING, "settle time", said)
        case "no-agent":
            said = f"no agent can run there, {SETTLE_SECONDS:g} s of settle time have passed; {excuse.word}"
            return _saying(answer, Verdict.ASSUMED, "settle time", said)
        case "standing":
            return _saying(answer, Verdict.EXCEPTED, "policy", f"standing straggler: {excuse.word}; {silence}")
        case _:
            return _saying(answer, Verdict.EXCEPTED, "vouched", f"{excuse.word}; {silence}")


def _saying(answer: Acknowledgement, verdict: Verdict, source: str, entry: str) -> Acknowledgement:
    return replace(answer, verdict=verdict, evidence=Evidence(source, answer.evidence.at, entry))


def next_step(node: str) -> str:
    """What ends the say of a standing straggler."""
    return (
        f"once it is known to be shut down: `kubectl delete node {node}`, the taint {OUT_OF_SERVICE}, "
        f"or `tidegate vouch node/{node} --dead --reason WHY`"
    )
