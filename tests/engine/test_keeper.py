"""The loop of one drain against a scripted coordinator: what it believes, and when it says ``verified``."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from tidegate import vtime
from tidegate.dataplane.facts import Unreadable
from tidegate.dataplane.sockets import Quiet
from tidegate.drain.event import Released
from tidegate.drain.progress import begin
from tidegate.drain.state import Mode
from tidegate.engine.journal import Journal
from tidegate.engine.loop import Keeper, Ports
from tidegate.engine.observe import PodSeen
from tidegate.kube.errors import Unreachable
from tidegate.model.endpoint import Endpoint
from tidegate.model.names import Ending
from tidegate.observers.coordinator import CoordinatorUnreachable, NodeView, View, ask_of

POD = ("uid-1", "demo", "echo-1")
ASK = msgspec.structs.replace(ask_of(POD, (Endpoint("127.17.1.2"),), Mode.GATE), round="k")


class Coordinator:
    """Answers with ``view``; ``fresh`` is whether a new look can be taken."""

    def __init__(self):
        self.view = View(instance="c", now=0.0, spell="c/0", reasons=("listed as ready",), observers=("n1", "n2"))
        self.fresh = True
        self.down = False
        self.changed = asyncio.Event()
        self.fresh_looks = 0
        self.on_fresh = lambda: None

    def say(self, **changes):
        self.view = msgspec.structs.replace(self.view, version=f"{self.view.version}+", **changes)
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    def clean(self, at=1.0, spell="c/1"):
        self.say(clean_at=at, reasons=(), spell=spell)

    def fence(self, number=5, at=1.1):
        nodes = tuple(NodeView(name, "pending", "shows an older fence") for name in self.view.observers)
        self.say(epoch=f"main/{number}", sent_at=at, nodes=nodes)

    def acknowledged(self, *names, verdict="confirmed"):
        self.say(nodes=tuple(NodeView(n.node, verdict if n.node in names else n.verdict, "x") for n in self.view.nodes))

    def all_let_go(self):
        self.clean()
        self.fence()
        self.acknowledged("n1", "n2")

    async def acknowledge(self, ask):
        await asyncio.sleep(0.001)
        if self.down:
            raise CoordinatorUnreachable("refused")
        if ask.fresh:
            self.fresh_looks += 1
            self.on_fresh()
        else:
            try:
                async with asyncio.timeout(max(ask.wait_seconds, 0.001)):
                    while ask.since == self.view.version:
                        await self.changed.wait()
            except TimeoutError:
                pass
        now = asyncio.get_running_loop().time()
        return msgspec.structs.replace(self.view, now=now, is_fresh=ask.fresh and self.fresh)


class Sockets:
    def __init__(self):
        self.quiet, self.reads = Quiet(), 0

    async def read(self, endpoints):
        self.reads += 1
        return self.quiet


class Grip:
    """A pod cut from the start, with a deadline at 30 s."""

    def __init__(self):
        self.recorded, self.deadline, self.fails = [], 30.0, 0
        self.while_recording = lambda: None
        self.record_seconds = [0.05]
        """Of each try, the last of all that follow."""

    def is_cut(self, seen):
        return True

    def deadline_at(self, seen):
        return self.deadline

    async def cut(self):
        return None

    async def seal(self):
        return None

    async def keep(self, drain):
        return

    async def note(self, drain):
        return

    async def conclude(self, drain, result):
        if self.fails:
            self.fails -= 1
            raise Unreachable("no API")
        self.recorded.append(result)
        self.while_recording()
        await asyncio.sleep(self.record_seconds[0])
        self.record_seconds = self.record_seconds[1:] or self.record_seconds
        return True

    async def release(self, drain, result):
        return Released(at=asyncio.get_running_loop().time())


class Stage:
    def __init__(self):
        self.coordinator, self.sockets, self.grip = Coordinator(), Sockets(), Grip()
        self.pod = PodSeen("uid-1")
        self.states = []
        ports = Ports(self.coordinator, self.sockets, Journal())
        self.keeper = Keeper(begin("demo/echo-1", Mode.GATE), ASK, ports, self.grip, self.pod)
        self.keeper.told = lambda drain: self.states.append(drain.state.name)


def play(*script, after=0.0):
    """Run a keeper; ``script`` is (seconds, function of the stage) pairs. Gives (result, seconds, stage)."""

    async def whole():
        stage = Stage()
        loop = asyncio.get_running_loop()
        for at, act in script:
            loop.call_later(at, act, stage)
        result = await stage.keeper.run()
        if after:
            await stage.keeper.watch_to_the_end(after)
        return result, loop.time(), stage

    return vtime.run(whole(), limit_seconds=100)


def test_everything_proven_is_verified_after_one_fresh_look():
    result, seconds, stage = play((1, lambda s: s.coordinator.all_let_go()))
    assert result.result is Ending.VERIFIED
    assert stage.coordinator.fresh_looks == 1
    assert seconds < 1.1
    assert stage.grip.recorded == [result]


def test_one_node_that_has_not_let_go_is_waited_for():
    result, seconds, _ = play(
        (1, lambda s: (s.coordinator.clean(), s.coordinator.fence(), s.coordinator.acknowledged("n1"))),
        (7, lambda s: s.coordinator.acknowledged("n2")),
    )
    assert result.result is Ending.VERIFIED
    assert 7 <= seconds < 7.2


@pytest.mark.parametrize("verdict", ["pending", "refuted", "unreadable", "unreachable"])
def test_anything_but_confirmed_blocks_until_the_deadline(verdict):
    result, seconds, _ = play(
        (1, lambda s: (s.coordinator.clean(), s.coordinator.fence(), s.coordinator.acknowledged("n1"))),
        (2, lambda s: s.coordinator.acknowledged("n2", verdict=verdict)),
    )
    assert (result.result, result.stragglers) == (Ending.TIMED_OUT, ("n2",))
    assert 30 <= seconds < 30.2


def test_an_assumed_node_makes_an_assumed_result():
    result, _, _ = play(
        (1, lambda s: (s.coordinator.clean(), s.coordinator.fence(), s.coordinator.acknowledged("n1"))),
        (2, lambda s: s.coordinator.acknowledged("n2", verdict="assumed")),
    )
    assert result.result is Ending.ASSUMED


def test_a_look_that_cannot_be_taken_again_is_no_proof():
    def start(stage):
        stage.coordinator.fresh = False
        stage.coordinator.all_let_go()

    result, seconds, stage = play((1, start))
    assert result.result is Ending.TIMED_OUT
    assert "last look" in result.reason
    assert 30 <= seconds < 30.3
    assert stage.coordinator.fresh_looks < 400


def test_a_route_that_comes_back_at_the_last_look_takes_the_proof_back():
    def start(stage):
        stage.coordinator.all_let_go()
        stage.coordinator.on_fresh = lambda: stage.coordinator.acknowledged("n2", verdict="refuted")

    result, _, stage = play((1, start))
    assert result.result is Ending.TIMED_OUT
    assert result.stragglers == ("n2",)
    assert stage.grip.recorded == [result]


def test_a_connection_seen_at_the_last_look_takes_the_proof_back():
    def start(stage):
        stage.coordinator.all_let_go()
        stage.coordinator.on_fresh = lambda: setattr(stage.sockets, "quiet", Quiet(unreadable=(Unreadable("?"),)))

    result, _, _ = play((1, start))
    assert result.result is Ending.TIMED_OUT


def test_a_source_that_comes_back_needs_another_epoch():
    def back(stage):
        stage.coordinator.say(clean_at=None, reasons=("listed again",), epoch="", sent_at=None, nodes=())

    def again(stage):
        stage.coordinator.clean(at=5.0, spell="c/2")
        stage.coordinator.fence(6, at=5.1)
        stage.coordinator.acknowledged("n1", "n2")

    result, seconds, stage = play(
        (1, lambda s: (s.coordinator.clean(), s.coordinator.fence(), s.coordinator.acknowledged("n1"))),
        (3, back),
        (5, again),
    )
    assert (result.result, result.epoch) == (Ending.VERIFIED, 6)
    assert seconds >= 5
    assert stage.states.count("CUT") == 2


def test_a_source_that_stays_dirty_is_named_at_the_deadline():
    result, _, _ = play((1, lambda s: s.coordinator.say(reasons=("last endpoint: no other is ready",))))
    assert (result.result, result.reason) == (Ending.TIMED_OUT, "last endpoint: no other is ready")


def test_nodes_that_were_not_listed_yet_are_waited_for():
    def unlisted(stage):
        stage.coordinator.all_let_go()
        stage.coordinator.say(observers=None)

    result, seconds, _ = play((1, unlisted), (9, lambda s: s.coordinator.say(observers=("n1", "n2"))))
    assert result.result is Ending.VERIFIED
    assert seconds >= 9


def test_the_word_of_a_node_that_has_no_say_is_passed_over():
    def start(stage):
        stage.coordinator.clean()
        stage.coordinator.fence()
        stage.coordinator.say(observers=("n1",))
        stage.coordinator.acknowledged("n1", "n2")

    result, _, _ = play((1, start))
    assert result.result is Ending.VERIFIED


def test_a_spell_that_was_missed_starts_over_without_being_seen_dirty():
    def other(stage):
        stage.coordinator.say(clean_at=4.0, spell="d/1", epoch="main/9", sent_at=4.1, nodes=())
        stage.coordinator.fence(9, at=4.1)

    result, seconds, _ = play(
        (1, lambda s: (s.coordinator.clean(), s.coordinator.fence(), s.coordinator.acknowledged("n1"))),
        (4, other),
        (6, lambda s: s.coordinator.acknowledged("n1", "n2")),
    )
    assert (result.result, result.epoch) == (Ending.VERIFIED, 9)
    assert seconds >= 6


def test_an_epoch_sent_before_the_clean_list_proves_nothing():
    def wrong(stage):
        stage.coordinator.clean(at=2.0)
        stage.coordinator.fence(5, at=1.5)
        stage.coordinator.acknowledged("n1", "n2")

    result, _, _ = play((1, wrong))
    assert result.result is Ending.TIMED_OUT
    assert result.epoch is None


def test_a_coordinator_that_is_gone_keeps_the_drain_waiting_and_a_new_one_is_believed():
    def back(stage):
        stage.coordinator.down = False
        stage.coordinator.view = msgspec.structs.replace(stage.coordinator.view, instance="d", spell="d/0")
        stage.coordinator.clean(at=100.0, spell="d/1")  # another process, another clock
        stage.coordinator.fence(7, at=100.1)
        stage.coordinator.acknowledged("n1", "n2")

    result, seconds, _ = play((0.5, lambda s: setattr(s.coordinator, "down", True)), (10, back))
    assert result.result is Ending.VERIFIED
    assert 10 <= seconds < 11.5


def test_a_coordinator_that_stays_away_ends_at_the_deadline():
    result, seconds, _ = play((0.5, lambda s: setattr(s.coordinator, "down", True)))
    assert result.result is Ending.TIMED_OUT
    assert 30 <= seconds < 30.2


def test_a_node_that_joins_in_the_middle_has_a_say():
    result, seconds, _ = play(
        (1, lambda s: (s.coordinator.clean(), s.coordinator.fence(), s.coordinator.acknowledged("n1"))),
        (2, lambda s: s.coordinator.say(observers=("n1", "n2", "n3"))),
        (3, lambda s: s.coordinator.acknowledged("n1", "n2")),
        (8, lambda s: s.coordinator.say(nodes=tuple(NodeView(n, "confirmed", "x") for n in ("n1", "n2", "n3")))),
    )
    assert result.result is Ending.VERIFIED
    assert seconds >= 8


def test_a_record_that_cannot_be_written_is_tried_again_after_another_look():
    def start(stage):
        stage.grip.fails = 8
        stage.coordinator.all_let_go()

    result, seconds, stage = play((1, start))
    assert result.result is Ending.VERIFIED
    assert 2 < seconds < 4
    assert stage.coordinator.fresh_looks >= 2, "a look older than a second does not count"


def test_a_route_that_comes_back_while_the_record_is_written_takes_the_proof_back():
    def start(stage):
        stage.coordinator.all_let_go()
        stage.grip.while_recording = lambda: stage.coordinator.acknowledged("n2", verdict="refuted")

    result, seconds, stage = play((1, start))
    assert result.result is Ending.TIMED_OUT
    assert seconds >= 30
    assert stage.grip.recorded[-1] == result, "what was recorded is corrected"


@pytest.mark.parametrize(("seconds", "looks"), [(0.9, 1), (8.0, 2)])
def test_a_proof_of_before_we_stood_still_is_taken_once_more(seconds, looks):
    """The holder waits for an agent that is not run; its word must not be of before."""

    def slow(stage):
        stage.grip.record_seconds = [seconds, 0.05]
        stage.coordinator.all_let_go()

    result, _, stage = play((1, slow))
    assert result.result is Ending.VERIFIED
    assert (stage.coordinator.fresh_looks, len(stage.grip.recorded)) == (looks, looks)


def test_a_deadline_that_is_moved_is_kept():
    result, seconds, _ = play((2, lambda s: (setattr(s.grip, "deadline", 6.0), s.keeper.wake())))
    assert result.result is Ending.TIMED_OUT
    assert 6 <= seconds < 6.2


def test_a_pod_that_is_gone_ends_the_drain():
    result, seconds, _ = play((4, lambda s: (s.pod.update(None), s.keeper.wake())))
    assert result.result is Ending.BYPASSED
    assert 4 <= seconds < 4.1


def test_a_reason_to_answer_at_once_is_taken():
    result, seconds, _ = play((1, lambda s: s.coordinator.say(exception="last endpoint: nobody makes another")))
    assert (result.result, result.reason) == (Ending.BYPASSED, "last endpoint: nobody makes another")
    assert seconds < 1.1


def test_a_waiting_keeper_is_idle():
    _, _, stage = play((1, lambda s: (s.coordinator.clean(), s.coordinator.fence())))
    assert stage.sockets.reads == 0
    assert len(stage.states) <= 5


def test_busy_sockets_are_read_less_and_less_often():
    def start(stage):
        stage.sockets.quiet = Quiet(unreadable=(Unreadable("busy"),))
        stage.coordinator.all_let_go()

    result, _, stage = play((1, start))
    assert result.result is Ending.TIMED_OUT
    assert 55 < stage.sockets.reads < 75


def test_what_contradicts_the_proof_after_the_release_is_kept_beside_it():
    result, seconds, stage = play(
        (1, lambda s: s.coordinator.all_let_go()),
        (3, lambda s: s.coordinator.acknowledged("n2", verdict="refuted")),
        (4, lambda s: s.coordinator.say(clean_at=None, reasons=("listed again",))),
        (5, lambda s: s.coordinator.say(reasons=("the pod is gone",))),
        after=8,
    )
    drain = stage.keeper.drain
    assert drain.result == result and result.result is Ending.VERIFIED
    assert drain.regressions == ("n2 refuted: x", "listed again")
    assert 9 <= seconds < 9.5


def test_the_watch_after_the_release_ends_with_the_pod():
    _, seconds, stage = play(
        (1, lambda s: s.coordinator.all_let_go()),
        (2, lambda s: (s.pod.update(None), s.keeper.wake())),
        after=30,
    )
    assert seconds < 2.5
    assert stage.keeper.drain.regressions == ()
