"""rolling: transcripts that read as a story, and a hundred seeds of slow pods, late gates and people who change their
mind, in which no invariant may break."""

from __future__ import annotations

import random
from dataclasses import replace

import msgspec
import pytest

from tidegate.release.foresee import Pace, World, foresee, play
from tidegate.release.record import Status
from tidegate.release.scene import Edition, Member, Scene, Way
from tidegate.release.spec import Spec
from tidegate.release.strategies import decide

SEEDS = 100


def scene(replicas=4, is_gated=True, surge=1, unavailable=1, spec=None, target="new"):
    members = tuple(
        Member(f"web-old-{i}", is_ready=True, is_available=True, is_listed=True, is_gated=is_gated)
        for i in range(1, replicas + 1)
    )
    old = Edition("old", "web", "old", replicas, members, is_base=True, is_gated=is_gated)
    return Scene(
        now=1000.0,
        spec=spec or Spec("web", images={"web": "web:2"}),
        status=Status(),
        target=target,
        replicas=replicas,
        floor=replicas - unavailable,
        surge=surge,
        editions=(old,),
        ways=(Way("web", {"app": "web"}),),
        template="old",
        generation=1,
    )


def asked(world, **changes):
    """Somebody asks for something else."""
    world.spec = msgspec.structs.replace(world.spec, **changes)
    world.generation += 1


def whole(*parts):
    """One transcript of several acts; an act's title stands above it."""
    lines = []
    for title, seen in parts:
        lines += [f"# {title}", *seen.lines(), ""]
    return "\n".join(lines)


def acts_of(*titles_and_changes):
    """Play from rest to rest: each act is a title and what somebody asks for then."""
    world, parts = None, []
    for title, first, changes in titles_and_changes:
        if first is not None:
            world = World(first)
        if changes:
            asked(world, **changes)
        parts.append((title, play(world)))
    assert world.breaches == []
    return whole(*parts), world


STORIES = {
    "gated": lambda: acts_of(("four gated pods, surge 1, unavailable 1", scene(), None)),
    "first-release": lambda: acts_of(("four pods that have no gate yet", scene(is_gated=False), None)),
    "ungated-proceed": lambda: acts_of(
        (
            "pods without a gate, and nobody wants to wait",
            scene(is_gated=False, spec=Spec("web", ungated="proceed")),
            None,
        )
    ),
}


@pytest.mark.parametrize("name", sorted(STORIES))
def test_a_story_reads_as_it_did(name, golden):
    text, _ = STORIES[name]()
    golden(f"release/rolling-{name}.txt", text)


def test_what_was_let_go_unverified_by_agreement_is_told_at_the_end():
    world = World(scene(is_gated=False, spec=Spec("web", ungated="proceed")))
    assert play(world).phase == "done"
    assert len(world.status.unverified) == 4 and "ungated" in world.status.unverified[0]


def test_an_image_that_never_comes_up_halts_and_abort_goes_back(golden):
    world = World(
        scene(spec=Spec("web", progress_seconds=60)), Pace(ready=lambda pod: 2.0 if "-old-" in pod else float("inf"))
    )
    first = play(world)
    assert (first.phase, world.breaches) == ("halted", [])
    asked(world, wish="abort")
    world.pace = Pace()
    second = play(world)
    assert second.phase == "aborted"
    golden("release/rolling-bad-image.txt", whole(("an image that never comes up", first), ("abort", second)))


def test_a_drain_that_was_not_verified_halts_until_somebody_says_go_on(golden):
    world = World(scene(), Pace(ending=lambda pod: "timed-out: node-3" if pod == "web-old-1" else "verified"))
    first = play(world)
    assert first.phase == "halted" and "node-3" in first.reason
    asked(world)
    second = play(world)
    assert second.phase == "done"
    golden("release/rolling-unverified.txt", whole(("node-3 never lets go", first), ("resume", second)))


def test_an_abort_without_a_revision_to_go_back_to_halts_and_does_not_go_on():
    gone = Status(phase="progressing", revision="new", stable="older", fingerprint="new", generation=1)
    decision = decide(replace(scene(spec=Spec("web", images={"web": "web:2"}, wish="abort")), status=gone))
    assert (decision.steps, decision.status.phase) == ((), "halted")
    assert "older is gone" in decision.status.reason


def test_of_two_revisions_of_one_fingerprint_the_newest_is_the_one_that_comes():
    """A ReplicaSet from before the gate is of the same template as the gated one that came of it."""
    told = scene(spec=Spec("web", wish="abort"))
    bare = replace(told.editions[0], revision="bare", desired=0, members=())
    status = Status(phase="aborting", stable="old", revision="new", generation=1)
    found = decide(replace(told, editions=(bare, *told.editions), status=status))
    assert found.status.phase == "aborted", found.status.reason


def test_a_third_revision_takes_the_place_of_the_second(golden):
    world = World(scene(replicas=8, surge=2, unavailable=0))
    first = play(world, until=lambda world: world.now - world.began > 3)
    world.target = "newest"
    asked(world)
    second = play(world)
    assert (second.phase, world.template, world.breaches) == ("done", "newest", [])
    golden("release/rolling-superseded.txt", whole(("the second", first), ("a third meanwhile", second)))


def test_paused_it_stops_and_resumed_it_goes_on(golden):
    world = World(scene(replicas=8, surge=2, unavailable=0))
    first = play(world, until=lambda world: world.now - world.began > 3)
    asked(world, paused=True)
    second = play(world)
    asked(world, paused=False)
    third = play(world)
    assert (second.phase, third.phase) == ("paused", "done")
    golden("release/rolling-paused.txt", whole(("begun", first), ("pause", second), ("resume", third)))


def test_the_ten_pods_of_the_story_stand_twice_with_a_sleep_and_briefly_with_a_gate():
    """10 pods, 2 s to be ready, 20 s to shut down: 20 stand for most of the rollout. With 2 s of real work in flight
    and a second for every observer to let go, the same rollout is over in a third of the time."""
    plain = foresee(scene(10, surge=3, unavailable=2), Pace(end=lambda pod: 20.0))
    gated = foresee(scene(10, surge=3, unavailable=2), Pace(end=lambda pod: 3.0))
    assert (plain.seconds, plain.most_pods) == (24.0, 20)
    assert gated.seconds <= plain.seconds / 3
    excess = [one.pod_seconds - 10 * one.seconds for one in (plain, gated)]
    assert excess[1] < excess[0] / 4


def people(world, rng):
    """What somebody does at random while it goes on."""
    match rng.randrange(7):
        case 0:
            asked(world, paused=not world.spec.paused)
        case 1:
            asked(world, wish="" if world.spec.wish else "abort")
        case 2:
            world.target = rng.choice(("new", "newer", "newest"))
            asked(world, wish="")
        case 3:
            world.replicas = rng.randrange(1, 9)
        case _:
            pass


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_happens_no_invariant_breaks_and_it_comes_to_an_end(seed):
    rng = random.Random(f"rolling/{seed}")
    replicas = rng.randrange(1, 9)
    first = scene(
        replicas,
        is_gated=rng.random() < 0.7,
        surge=rng.randrange(1, 4),
        unavailable=rng.randrange(0, replicas + 1),
        spec=Spec("web", ungated=rng.choice(("drain", "proceed"))),
    )
    draws = {}
    pace = Pace(ready=lambda pod: draws.setdefault(pod, rng.uniform(0.1, 20)), end=lambda pod: rng.uniform(0.1, 30))
    world = World(first, pace)
    for _ in range(8):
        until = world.now + rng.uniform(0, 15)
        play(world, until=lambda world, until=until: world.now >= until)
        people(world, rng)
    asked(world, paused=False, wish="")
    last = play(world)
    assert world.breaches == [], f"seed {seed}"
    assert last.phase == "done", f"seed {seed}: {last.reason}"
    new = [one for one in world.scene().editions if one.fingerprint == world.target]
    assert [one.available for one in new] == [world.replicas]
    assert all(not one.members for one in world.scene().editions if one.fingerprint != world.target)
