"""Analyses of rainbow, told forward (``rainbow_world``): before new traffic goes to a revision, and after."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from rainbow_world import World

from tidegate.release.analysis import Finding
from tidegate.release.guard import breaches
from tidegate.release.plan import Act, Decision, Step
from tidegate.release.proving import FULL
from tidegate.release.scene import REVISION_LABEL
from tidegate.release.spec import FlipAnalysis, Invalid, decode_spec

SMOKE = FlipAnalysis("smoke", "http", url="http://web-r2/smoke", interval_seconds=2, when="before")
RATE = FlipAnalysis(
    "rate", "prometheus", url="http://p:9090", query="q", success=">= 0.99", interval_seconds=5, when="after"
)
BOTH = (SMOKE, RATE)
GOOD, BAD, SILENT = Finding(True, "1 is >= 0.99"), Finding(False, "0.3 is not >= 0.99"), Finding(None, "no sample")


def world_of(analysis=BOTH, seed=0, **answers):
    """``answers``: of each analysis by name; Prometheus can be reached."""
    world = World(seed, idle_seconds=1.0, retire_seconds=2.0, analysis=analysis)
    world.answers, world.asked = answers, []

    def judge(moment, name):
        world.asked.append((moment, name))
        found = world.answers.get(name, GOOD)
        return GOOD if moment == "before" else found() if callable(found) else found

    world.judge = judge
    world.release("t2")
    return world


def selected(world):
    return world.selectors["web"].get(REVISION_LABEL)


def counts(world):
    return {one.name: one.desired for one in world.revisions}


def sound(world):
    assert world.cut == [] and world.lost == []


def test_what_passes_on_both_sides_goes_on_and_the_one_before_drains_afterwards(golden):
    world = world_of()
    world.until(lambda: world.phase() == "done")
    sound(world)
    assert (selected(world), counts(world), world.status.stable) == ("r2", {"r1": 0, "r2": 3}, "r2")
    assert [name for _, name in world.asked] == ["rate", *["smoke"] * 3, *["rate"] * 3]
    last = max(number for number, line in enumerate(world.log) if "rate after the flip" in line)
    assert last < next(number for number, line in enumerate(world.log) if "scale r1 to" in line)
    golden("release/rainbow-analysis.txt", world.text())


def test_before_the_flip_a_failure_aborts_and_new_traffic_never_moved(golden):
    world = world_of(smoke=BAD)
    world.until(lambda: world.phase() == "aborted")
    sound(world)
    assert (selected(world), counts(world)) == ("r1", {"r1": 3})
    assert world.status.reason.startswith("http smoke failed 1 of 1 before the flip: 0.3 is not >= 0.99; r1 has all")
    assert not any("retarget" in line and "=r2" in line for line in world.log)
    golden("release/rainbow-analysis-before.txt", world.text())


def test_after_the_flip_a_failure_goes_back_and_its_clients_end_by_themselves(golden):
    world = world_of(rate=BAD)
    world.until(lambda: selected(world) == "r2")
    world.play(2)
    world.client(60.0, "r2")
    world.until(lambda: selected(world) == "r1")
    assert counts(world)["r1"] == 3, "it was kept whole"
    world.until(lambda: world.phase() == "aborted")
    sound(world)
    assert (counts(world), world.now > 60) == ({"r1": 3}, True)
    assert world.status.reason.startswith("prometheus rate failed 1 of 1 after the flip: ")
    world.play(120)
    assert world.phase() == "aborted", "until somebody asks again"
    world.answers.clear()
    world.ask()
    world.until(lambda: world.phase() == "done")
    sound(world)


@pytest.mark.parametrize(("name", "serving"), [("smoke", "r1"), ("rate", "r2")])
def test_a_problem_holds_and_pauses_and_is_no_success(name, serving):
    world = world_of(**{name: SILENT})
    world.play(300)
    sound(world)
    assert (world.phase(), selected(world), counts(world)) == ("paused", serving, {"r1": 3, "r2": 3})
    assert "no sample; " in world.status.reason
    world.answers.clear()
    world.until(lambda: world.phase() == "done")
    sound(world)
    assert counts(world) == {"r1": 0, "r2": 3}


def test_while_it_is_paused_by_a_problem_older_ones_go_on_draining():
    world = world_of(())
    world.until(lambda: selected(world) == "r2")
    world.client(60.0, "r1")
    world.until(lambda: world.status.stable == "r2")
    rainbow = msgspec.structs.replace(world.spec.rainbow, analysis=BOTH)
    world.answers["smoke"] = SILENT
    world.release("t3", rainbow=rainbow)
    world.play(200)
    assert (world.phase(), selected(world), counts(world)) == ("paused", "r2", {"r1": 0, "r2": 3, "r3": 3})
    sound(world)


def test_a_third_asked_for_while_the_second_is_watched_goes_back_to_the_first():
    world = world_of(rate=SILENT)
    world.play(60)
    assert selected(world) == "r2"
    world.release("t3")
    world.play(60)
    assert selected(world) == "r3"
    world.answers["rate"] = BAD
    world.until(lambda: world.phase() == "aborted")
    sound(world)
    assert (selected(world), counts(world)) == ("r1", {"r1": 3})


def test_a_full_promotion_lets_them_pass_and_a_rollback_asks_none():
    world = world_of(smoke=SILENT, rate=SILENT)
    world.play(60)
    world.ask(promoted=FULL)
    world.until(lambda: world.phase() == "done")
    asked = len(world.asked)
    world.target = "t1"
    world.ask(rollback_to="r1")
    world.until(lambda: world.phase() == "done" and selected(world) == "r1")
    sound(world)
    assert len(world.asked) == asked


def test_the_autoscaler_goes_with_the_traffic_and_comes_back_with_it():
    world = world_of(rate=SILENT)
    world.revision("r1").autoscaler = "web"
    world.play(60)
    assert [(one.name, one.autoscaler) for one in world.revisions] == [("r1", ""), ("r2", "web")]
    world.answers["rate"] = BAD
    world.until(lambda: world.phase() == "aborted")
    sound(world)
    assert [(one.name, one.autoscaler, one.desired) for one in world.revisions] == [("r1", "web", 3)]


def test_the_guard_lets_nobody_shrink_the_way_back_before_it_has_passed():
    world = world_of(rate=SILENT)
    world.play(60)
    shrink = Step(Act.SCALE, "r1", "because", count=0)
    assert "has not passed" in breaches(world.scene(), Decision((shrink,), world.status))[0]


def test_a_halt_on_the_way_back_is_no_change_of_mind():
    world = world_of(rate=BAD)
    world.until(lambda: world.phase() == "aborting")
    world.endings["web-r2-1"] = "timed-out: node-3"
    world.until(lambda: world.phase() == "halted")
    world.ask()
    world.until(lambda: world.phase() == "aborted")
    sound(world)
    assert (selected(world), [name for _, name in world.asked].count("rate")) == ("r1", 2)


@pytest.mark.parametrize("answers", [{}, {"smoke": BAD}, {"rate": BAD}])
def test_killed_after_every_write_it_goes_on_from_what_it_finds(answers):
    def told(last):
        world = world_of(**answers)
        world.play(40, last)
        world.until(lambda: world.phase() == ("aborted" if answers else "done"))
        sound(world)
        return selected(world), counts(world)

    assert told(1) == told(2) == told(None)


@pytest.mark.parametrize("seed", range(60))
def test_whatever_is_answered_and_asked_for_whenever_nobody_is_cut(seed):
    rng = random.Random(f"rainbow-analysis/{seed}")
    limits = [msgspec.structs.replace(one, failure_limit=rng.choice((0, 1)), count=rng.randint(1, 4)) for one in BOTH]
    world = world_of(
        tuple(limits),
        seed,
        smoke=lambda: rng.choice((GOOD, GOOD, GOOD, SILENT, BAD)),
        rate=lambda: rng.choice((GOOD, SILENT, BAD)),
    )
    for number in range(rng.randint(1, 6)):
        for _ in range(rng.randrange(40)):
            if rng.random() < 0.3:
                world.client(rng.uniform(1, 30))
            world.tick()
            world.look(rng.choice((None, None, 1)))
        match rng.randrange(5):
            case 0:
                world.ask(wish="abort")
            case 1:
                world.ask(wish="", paused=False)
            case 2:
                world.ask(paused=True)
            case 3:
                world.release(f"t{number + 3}")
            case _:
                world.ask(paused=False)
    sound(world)
    world.answers.clear()
    world.ask(paused=False)
    world.until(lambda: world.phase() in ("done", "aborted"), 900)
    sound(world)
    assert selected(world) in (None, *counts(world))


def test_without_a_service_there_is_no_new_traffic_to_ask_about():
    analysis = [{"name": "a", "kind": "http", "url": "http://a", "when": "after"}]
    with pytest.raises(Invalid, match=r"\$.spec.rainbow.service: its analyses are of new traffic"):
        decode_spec({"workload": "web", "strategy": "rainbow", "rainbow": {"analysis": analysis}})
