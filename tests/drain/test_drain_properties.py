"""No sequence of events reaches a proof without its parts: checked against a deliberately simple second reading.

The oracle looks at the bare list of events that were accepted and at nothing the drain remembers.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from drain_stage import ENDPOINT, INSTALL, POD, busy, epoch, facts
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.dataplane import Facts, Quiet, Unreadable
from tidegate.drain import Drain, EventError, Mode, State, acknowledge, begin, step
from tidegate.drain.event import (
    Acknowledged,
    Bypassed,
    Cut,
    DeadlinePassed,
    Event,
    FenceWritten,
    ObserversListed,
    Released,
    Restored,
    Resumed,
    SocketsRead,
    SourceClean,
    SourceDirty,
    Tombstoned,
)
from tidegate.model.epoch import Epoch
from tidegate.model.names import Ending

NODES = ("node-1", "node-2")
LIVE = (State.CUT, State.CLEAN, State.FENCED, State.UNROUTED, State.QUIET, State.DRAINED)


@dataclass
class World:
    """One random run: what was accepted, and the facts behind each answer."""

    drain: Drain
    accepted: list[Event] = field(default_factory=list)
    behind: dict[int, Facts] = field(default_factory=dict)
    now: float = 0.0
    written: int = 0

    def offer(self, event: Event) -> None:
        try:
            self.drain = step(self.drain, event)
        except EventError:
            return
        self.accepted.append(event)


def play(world: World, choice: tuple[str, int, int]) -> None:
    verb, first, second = choice
    world.now += 1.0
    now = world.now
    match verb:
        case "ahead":
            play_ahead(world, first)
        case "end":
            world.offer((DeadlinePassed, Resumed, Resumed, Restored)[first % 4](at=now))
        case "clean":
            world.offer(SourceClean(at=now))
        case "dirty":
            world.offer(SourceDirty(at=now, reasons=("listed",)))
        case "fence":
            world.written += 1
            world.offer(FenceWritten(at=now, epoch=epoch(world.written), sent_at=now - first % 3 - 0.5))
        case "nodes":
            world.offer(ObserversListed(at=now, observers=(NODES, NODES[:1], NODES[1:], ())[first % 4]))
        case "sockets":
            quiet = (Quiet(), Quiet(), busy(1), Quiet(unreadable=(Unreadable("?"),)))[first % 4]
            world.offer(SocketsRead(at=now - second % 3, quiet=quiet))
        case _:
            play_answer(world, first, second)


def play_ahead(world: World, first: int) -> None:
    """What an orderly run would bring next: without it, chaos hardly ever gets as far as a proof."""
    now = world.now
    match world.drain.state:
        case State.SERVING:
            world.offer(Cut(at=now))
        case State.CUT:
            world.offer(SourceClean(at=now))
        case State.CLEAN:
            play(world, ("fence", first, 0))
        case State.FENCED if world.drain.stragglers:
            play_answer(world, NODES.index(world.drain.stragglers[0]), 0)
        case State.FENCED:
            play(world, ("nodes", 0, 0))
        case State.UNROUTED:
            world.offer(SocketsRead(at=now, quiet=Quiet()))
        case State.QUIET:
            world.offer(Tombstoned(at=now))
        case State.OVERDUE:
            world.offer(Resumed(at=now))
        case _:
            pass


def play_answer(world: World, first: int, second: int) -> None:
    node = NODES[first % 2]
    fence = world.written - (second % 7 == 1)
    ways = {2: {"routed": True}, 3: {"opening": True}, 4: {"bad": "garbage"}}
    dump = facts(node, max(fence, 0), **ways.get(second % 7, {}))
    event = Acknowledged(at=world.now, acknowledgement=acknowledge(dump, (ENDPOINT,), epoch(world.written)))
    world.behind[id(event)] = dump
    world.offer(event)


def clean_dump(dump: Facts, wanted: Epoch) -> bool:
    """The words of the protocol, once more: fence >= E, no route, no handshake, in one readable dump."""
    shown = [seen for seen in dump.fence if seen.install == INSTALL]
    return (
        not dump.unreadable
        and len(shown) == 1
        and shown[0].number >= wanted.number
        and not dump.routes_to(ENDPOINT)
        and not dump.opening_to(ENDPOINT)
    )


def is_proven(world: World) -> bool:
    """S and L, and the seal, from the accepted events alone."""
    events = world.accepted
    restarts = [n for n, event in enumerate(events) if isinstance(event, Cut | SourceDirty | Resumed | Tombstoned)]
    listings = [event for event in events if isinstance(event, ObserversListed)]
    if not restarts or not listings or not listings[-1].observers:
        return False
    tail = events[restarts[-1] + 1 :]
    writes = [n for n, event in enumerate(tail) if isinstance(event, FenceWritten)]
    if not writes:
        return False
    write = tail[writes[-1]]
    assert isinstance(write, FenceWritten)
    cleans = [event.at for event in tail[: writes[-1]] if isinstance(event, SourceClean)]
    if not cleans or not cleans[-1] < write.sent_at:
        return False
    written_at = restarts[-1] + 1 + writes[-1]
    since = [let_go_since(world, node, written_at, write) for node in listings[-1].observers]
    readings = [event for event in tail if isinstance(event, SocketsRead) and None not in since]
    counted = [event for event in readings if event.at >= max(at for at in since if at is not None)]
    is_sealed = world.drain.mode is Mode.GATE or any(isinstance(event, Tombstoned) for event in events)
    return None not in since and bool(counted) and counted[-1].quiet.is_quiet and is_sealed


def let_go_since(world: World, node: str, written_at: int, write: FenceWritten) -> float | None:
    """Since when the node's answers have all been clean, None when the last is not (or it left in between).

    What an observer answered while it was known not to be one counts neither way.
    """
    since: float | None = None
    is_listed = True
    for number, event in enumerate(world.accepted):
        if isinstance(event, ObserversListed):
            is_listed = node in event.observers
            since = since if is_listed else None
        is_answer = isinstance(event, Acknowledged) and event.acknowledgement.observer == node
        if number > written_at and is_listed and is_answer:
            is_ours = event.acknowledgement.epoch == write.epoch
            if is_ours and clean_dump(world.behind[id(event)], write.epoch):
                since = event.at if since is None else since
            elif is_ours:
                since = None
    return since


VERBS = ["ahead"] * 12 + ["answer"] * 4 + ["sockets"] * 3 + ["nodes", "clean", "dirty", "fence", "end"]
CHOICES = st.tuples(st.sampled_from(VERBS), st.integers(0, 23), st.integers(0, 20))
RUNS = st.lists(CHOICES, min_size=15, max_size=40)


@settings(max_examples=250, deadline=None)
@given(mode=st.sampled_from(list(Mode)), choices=RUNS)
def test_a_drain_is_verified_when_and_only_when_every_part_of_the_proof_stands(mode, choices):
    world = World(begin(POD, mode))
    for choice in choices:
        play(world, choice)
        drain = world.drain
        if drain.state is State.DRAINED:
            assert drain.result is not None
            assert drain.result.result is Ending.VERIFIED
            assert is_proven(world)
        elif drain.state in LIVE and is_proven(world):
            # More careful than it need be (an observer in doubt has left the cluster): one more reading, and done.
            assert step(drain, SocketsRead(at=world.now, quiet=Quiet())).state is State.DRAINED


@settings(max_examples=100, deadline=None)
@given(mode=st.sampled_from(list(Mode)), choices=RUNS, late=st.integers(0, 3))
def test_what_is_released_from_anywhere_but_drained_is_never_verified(mode, choices, late):
    world = World(begin(POD, mode))
    for choice in choices:
        play(world, choice)
    was = world.drain.state
    if late == 0:
        world.offer(Bypassed(at=world.now + 1, reason="the agent died"))
        was = world.drain.state
    world.offer(Released(at=world.now + 2))
    drain = world.drain
    if drain.state is State.RELEASED:
        assert drain.result is not None
        assert (drain.result.result is Ending.VERIFIED) == (was is State.DRAINED)
    else:
        assert not was.may_release


@settings(max_examples=30, deadline=None)
@given(mode=st.sampled_from(list(Mode)), choices=RUNS)
def test_the_same_events_always_give_the_same_drain(mode, choices):
    first, second = World(begin(POD, mode)), World(begin(POD, mode))
    for choice in choices:
        play(first, choice)
    for choice in choices:
        play(second, choice)
    assert first.drain == second.drain


def test_random_runs_do_get_as_far_as_a_proof():
    """A property that is never put to the test proves nothing: a fixed draw of runs must reach every state."""
    chance = random.Random(0)
    reached: set[State] = set()
    for _ in range(60):
        world = World(begin(POD, chance.choice(list(Mode))))
        for _ in range(40):
            play(world, (chance.choice(VERBS), chance.randrange(24), chance.randrange(21)))
            reached.add(world.drain.state)
    assert reached >= {*LIVE, State.OVERDUE, State.RESTORED}
