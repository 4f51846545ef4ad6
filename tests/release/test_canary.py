"""canary's planner, told forward over a world of pods, routes and clients (``canary_world``)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from canary_world import World

from tidegate.release.analysis import Finding
from tidegate.release.foresee import foresee
from tidegate.release.fork import Fork
from tidegate.release.proving import FULL
from tidegate.release.scene import REVISION_LABEL
from tidegate.release.spec import Analysis

ROUTERS = ("replicas", "httproute")
SUCCESS = Analysis("success-rate", "prometheus", url="http://p:9090", query="q", success=">= 0.99", interval_seconds=2)


def desired(world):
    return [(one.name, one.desired) for one in world.revisions]


def as_it_was(world):
    """Nothing of ours is left, and the old revision has everything."""
    assert [(one.name, one.desired, len(one.pods)) for one in world.revisions] == [
        ("r1", world.replicas, world.replicas)
    ]
    assert list(world.selectors) == ["web"]
    assert world.fork in (None, Fork("httproute/web", {"web": 100}))


def at_weight(world, weight):
    """The step of ``weight`` has come into effect."""
    steps = world.spec.canary.steps
    return lambda: (
        world.status.fingerprint == world.target
        and world.status.arrived > world.status.step
        and steps[world.status.step].weight == weight
    )


@pytest.mark.parametrize("router", ROUTERS)
def test_good_to_good_step_by_step(router, golden):
    world = World(router=router, steps=(25, 50), pause=5.0)
    world.play(2)
    world.release("t2")
    world.to_the_end()
    assert desired(world) == [("r1", 0), ("r2", 4)]
    assert world.available_min >= 3
    assert list(world.selectors) == ["web"]
    assert world.fork in (None, Fork("httproute/web", {"web": 100}))
    golden(f"release/canary-{router}.txt", world.text())


@pytest.mark.parametrize("router", ROUTERS)
def test_the_next_release_retires_the_one_before(router):
    world = World(router=router)
    for number in (2, 3, 4):
        world.release(f"t{number}")
        world.to_the_end()
    assert desired(world) == [("r1", 0), ("r4", 4)]
    assert world.retired == ["r2", "r3"]


@pytest.mark.parametrize("router", ROUTERS)
def test_a_bad_canary_is_aborted_by_its_analysis_and_traffic_goes_back_first(router, golden):
    world = World(router=router, steps=(25, 50), analysis=(SUCCESS,))
    world.judge = lambda name, at: Finding(False, "0.31 is not >= 0.99") if world.pods("r2") else Finding(True, "1")
    world.release("t2")
    world.to_the_end("aborted")
    as_it_was(world)
    assert world.status.reason.startswith("prometheus success-rate failed 1 of 1 at 25 %: 0.31 is not >= 0.99; r1 has")
    assert world.retired == ["r2"]
    assert world.served.get(("service", "r2"), 0) < world.served[("service", "r1")]
    golden(f"release/canary-{router}-aborted.txt", world.text())


@pytest.mark.parametrize("router", ROUTERS)
def test_an_aborted_release_stays_aborted_until_somebody_asks_again(router):
    world = World(router=router, analysis=(SUCCESS,))
    world.judge = lambda name, at: Finding(False, "0")
    world.release("t2")
    world.to_the_end("aborted")
    world.play(60)
    assert world.phase() == "aborted" and world.revision("r2") is None
    world.judge = lambda name, at: Finding(True, "1")
    world.ask()
    world.to_the_end()


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("seconds", range(0, 66, 3))
def test_abort_at_any_time_ends_as_it_was(router, seconds):
    world = World(router=router, steps=(25, 50), pause=2.0)
    world.release("t2")
    world.play(seconds)
    world.ask(wish="abort")
    world.until(lambda: world.phase() == "aborted")
    assert world.lost == [] and world.wrong == []
    if seconds < 30:
        as_it_was(world)
    assert desired(world)[0] == ("r1", 4)
    world.release("t3")
    world.to_the_end()


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("seconds", range(0, 66, 3))
def test_a_third_revision_mid_way_drains_the_second_and_nobody_gets_a_503(router, seconds):
    world = World(router=router, steps=(25, 50), pause=2.0)
    world.release("t2")
    world.play(seconds)
    world.release("t3")
    world.to_the_end()
    assert len(world.revisions) == 2 and len(world.pods("r1")) == 0


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("seconds", range(0, 66, 3))
def test_what_serves_is_asked_for_mid_way_and_the_canary_goes(router, seconds):
    """It was called done at once, with the canary's share where it was."""
    world = World(router=router, steps=(25, 50), pause=2.0)
    world.release("t2")
    world.play(seconds)
    world.release("t1")
    world.to_the_end()
    assert desired(world) == [("r1", 4)] and world.served.get(("service", "r1")), world.text()
    assert world.lost == [] and world.wrong == []
    if seconds < 30:
        as_it_was(world)


def test_superseded_mid_way_is_told_as_a_story(golden):
    world = World(router="httproute", steps=(25, 50), pause=None)
    world.release("t2")
    world.until(at_weight(world, 25))
    world.release("t3")
    world.until(at_weight(world, 25))
    world.promote(2)
    world.to_the_end()
    golden("release/canary-superseded.txt", world.text())


@pytest.mark.parametrize("router", ROUTERS)
def test_a_canary_whose_image_cannot_be_pulled_halts_with_traffic_where_it_was(router, golden):
    world = World(router=router, steps=(25, 50))
    world.ask(progress_seconds=30.0)
    world.broken.add("t2")
    world.release("t2")
    world.until(lambda: world.phase() == "halted")
    assert world.status.reason.startswith("no progress for 30 s: pod/web-r2-1: ImagePullBackOff; traffic stays on r1")
    world.play(30)
    assert world.phase() == "halted" and len(world.pods("r1")) == 4 and world.lost == []
    assert not any(revision == "r2" for _, revision in world.served)
    world.release("t3")
    world.to_the_end()
    assert desired(world) == [("r1", 0), ("r3", 4)]
    golden(f"release/canary-{router}-never-ready.txt", world.text())


@pytest.mark.parametrize("router", ROUTERS)
def test_a_canary_that_falls_over_is_aborted_at_once(router):
    world = World(router=router, steps=(25, 50), pause=None)
    world.release("t2")
    world.until(at_weight(world, 25))
    for pod in world.pods("r2"):
        pod.is_ill = True
    world.until(lambda: world.phase() == "aborted")
    assert "r2 was ready and is no more" in world.status.reason
    as_it_was(world)
    # Until the abort is everywhere, what goes to a dead pod fails; no request may fail for another reason.
    assert world.wrong == []


def test_a_canary_pod_that_is_evicted_is_replaced_where_nobody_sends_to_one_that_is_not_ready():
    world = World(router="replicas", steps=(25, 50), pause=None)
    world.release("t2")
    world.until(at_weight(world, 25))
    for pod in world.pods("r2"):
        pod.leaving_at = world.now
    world.play(5)
    assert world.phase() == "paused" and world.lost == world.wrong == []
    world.promote(2)
    world.to_the_end()
    assert desired(world) == [("r1", 0), ("r2", 4)]


def test_prometheus_that_cannot_be_asked_pauses_before_any_traffic_moves(golden):
    world = World(router="httproute", analysis=(SUCCESS,))
    world.judge = lambda name, at: Finding(None, "cannot be reached: connection refused")
    world.release("t2")
    world.until(lambda: world.phase() == "paused")
    world.play(20)
    assert world.phase() == "paused" and [one.name for one in world.revisions] == ["r1"]
    assert world.status.reason.endswith("connection refused; traffic stays where it is")
    world.judge = lambda name, at: Finding(True, "1")
    world.to_the_end()
    golden("release/canary-unreachable.txt", world.text())


@pytest.mark.parametrize("router", ROUTERS)
def test_prometheus_that_falls_silent_mid_way_is_no_success_and_no_failure(router):
    world = World(router=router, analysis=(SUCCESS,))
    world.release("t2")
    world.until(at_weight(world, 25))
    world.judge = lambda name, at: Finding(None, "the query found no sample, and one is judged")
    world.until(lambda: world.phase() == "paused")
    before = desired(world)
    world.play(60)
    assert desired(world) == before and world.status.step == 0
    assert "no sample" in world.status.reason and "25 % on r2" in world.status.reason
    world.judge = lambda name, at: Finding(True, "1")
    world.to_the_end()


@pytest.mark.parametrize("router", ROUTERS)
def test_one_failure_within_the_limit_is_let_pass(router):
    one = Analysis("errors", "http", url="http://e", interval_seconds=1, count=3, failure_limit=1)
    world = World(router=router, analysis=(one,))
    answers = iter([False] + [True] * 99)
    world.judge = lambda name, at: Finding(next(answers), "it answered")
    world.release("t2")
    world.to_the_end()


@pytest.mark.parametrize("router", ROUTERS)
def test_a_step_without_an_end_waits_until_it_is_promoted_and_each_promotion_counts_once(router):
    world = World(router=router, steps=((25, None), (50, None)))
    world.ask(promoted=7)  # left over from a release before
    world.release("t2")
    world.status = world.status.__class__(revision="r1", stable="r1", fingerprint="t1", phase="done")
    world.until(lambda: world.phase() == "paused")
    world.play(60)
    assert world.phase() == "paused" and world.status.reason == "stays at 25 % until `release promote`"
    world.promote()
    world.promote()  # twice at the same pause is once
    world.until(at_weight(world, 50))
    world.play(60)
    assert world.status.reason == "stays at 50 % until `release promote`"
    world.promote()
    world.to_the_end()


@pytest.mark.parametrize("router", ROUTERS)
def test_a_pod_that_falls_over_in_a_long_pause_is_waited_for_and_no_deadline_has_passed(router):
    """argo-rollouts #3414: a pause that counted against the deadline."""
    world = World(router=router, steps=((50, None),))
    world.release("t2")
    world.until(lambda: world.phase() == "paused")
    world.play(2 * world.spec.progress_seconds)
    world.pods("r2")[0].is_ill = True
    for _ in range(10):
        world.play(1)
        assert world.phase() in ("progressing", "paused"), world.status.reason
    world.pods("r2")[0].is_ill = False
    world.until(lambda: world.phase() == "paused")
    world.promote()
    world.to_the_end()


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("seconds", (0, 5, 12, 20, 30))
def test_promote_full_goes_straight_to_all_of_it(router, seconds):
    world = World(router=router, steps=((10, None), (25, None), (50, None)), analysis=(SUCCESS,))
    world.release("t2")
    world.play(seconds)
    world.promote(FULL)
    world.to_the_end()


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("seconds", (0, 4, 9, 15, 22, 31))
def test_pause_stays_where_it_is_and_resume_goes_on(router, seconds):
    world = World(router=router, steps=(25, 50), pause=2.0)
    world.release("t2")
    world.play(seconds)
    world.ask(paused=True)
    world.play(5)
    before = desired(world), dict(world.selectors), world.fork
    world.play(40)
    if world.phase() != "done":
        assert world.phase() == "paused"
        assert (desired(world), dict(world.selectors), world.fork) == before
    world.ask(paused=False)
    world.to_the_end()


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("to", (2, 8, 10))
@pytest.mark.parametrize("weight", (25, 50))
def test_scaled_mid_way(router, to, weight):
    world = World(router=router, steps=(25, 50), pause=4.0)
    world.release("t2")
    world.until(at_weight(world, weight))
    world.replicas, world.unavailable = to, max(to // 4, 1)
    if router == "httproute":
        world.revision("r1").desired = to
    world.to_the_end()
    assert desired(world) == [("r1", 0), ("r2", to)]


@pytest.mark.parametrize("router", ROUTERS)
def test_steps_edited_mid_way_are_taken_up_where_the_share_is(router):
    world = World(router=router, replicas=10, surge=3, steps=((10, None), (50, None)))
    world.release("t2")
    world.until(at_weight(world, 10))
    world.promote()
    world.until(at_weight(world, 50))
    world.steps(50, 80, pause=None)  # the first is gone, one came: still at 50
    world.play(30)
    assert world.phase() == "paused" and world.status.reason == "stays at 50 % until `release promote`"
    world.steps((20, None), (30, None))  # all of them less: down to the last
    world.play(60)
    assert world.phase() == "paused" and world.status.reason == "stays at 30 % until `release promote`"
    assert len(world.pods("r2")) == 3
    world.steps((20, None), (40, None))
    world.play(60)
    assert world.status.reason == "stays at 40 % until `release promote`"
    world.promote()
    world.to_the_end()


def test_weights_that_somebody_else_writes_pause_it_and_resume_writes_them_again():
    world = World(router="httproute", steps=((25, None), (50, None)))
    world.release("t2")
    world.until(at_weight(world, 25))
    world.fork = Fork(world.fork.name, {"web": 40, "web-canary": 60}, "", True)
    world.play(10)
    assert world.phase() == "paused"
    assert world.status.reason.startswith("httproute/web gives r2 60 %, and this release had written 25 %: somebody")
    assert world.fork.shares["web-canary"] == 60, "no fight"
    world.ask()
    world.play(5)
    assert world.fork.shares["web-canary"] == 25
    world.promote(2)
    world.to_the_end()


def test_a_header_leads_to_the_canary_alone_before_anybody_else_goes_there():
    world = World(router="httproute", steps=((0, None, "x-canary=yes"), (50, None)))
    world.release("t2")
    world.until(at_weight(world, 0))
    world.play(10)
    assert world.fork == Fork("httproute/web", {"web": 100, "web-canary": 0}, "x-canary=yes", True)
    assert ("router", "r2") not in world.served and len(world.pods("r2")) == 1
    world.promote()
    world.until(at_weight(world, 50))
    assert world.fork.header == ""
    world.promote()
    world.to_the_end()


@pytest.mark.parametrize("router", ROUTERS)
def test_an_autoscaler_s_revision_keeps_its_pods_until_the_other_has_one_of_its_own(router, golden):
    world = World(router=router, replicas=6, steps=(25, 50), pause=6.0)
    world.revision("r1").autoscaler = "web"
    world.release("t2")
    world.until(at_weight(world, 25))
    assert len(world.pods("r1")) == 6
    world.revision("r1").desired = world.replicas = 9  # the autoscaler's doing
    world.to_the_end()
    assert desired(world) == [("r1", 0), ("r2", 9)] and world.revision("r2").autoscaler
    golden(f"release/canary-{router}-autoscaler.txt", world.text())


@pytest.mark.parametrize("router", ROUTERS)
def test_pods_without_a_gate_are_drained_by_label_before_they_go(router, golden):
    world = World(router=router, gated=False)
    world.release("t2")
    world.to_the_end()
    assert set(world.endings.values()) == {"verified"}
    golden(f"release/canary-{router}-ungated.txt", world.text())


@pytest.mark.parametrize("router", ROUTERS)
def test_a_canary_whose_pods_have_no_gate_gets_no_traffic(router):
    """Whatever stripped it (a policy, a webhook): its pods could not be drained (peers S50)."""
    world = World(router=router)
    world.release("t2")
    world.until(lambda: world.pods("r2"))
    for pod in world.pods("r2"):
        pod.is_gated = False
    world.until(lambda: world.phase() == "halted")
    assert "have no gate: no traffic" in world.status.reason and not world.served.get(("router", "r2"))
    world.play(30)
    assert world.status.weight == 0 and world.wrong == []


@pytest.mark.parametrize("router", ROUTERS)
def test_a_bad_revision_is_released_away_from(router):
    world = World(router=router)
    for pod in world.pods("r1"):
        pod.is_ill = True
    world.release("t2")
    world.until(lambda: (world.phase(), world.status.fingerprint) == ("done", "t2"))
    assert world.wrong == [] and desired(world) == [("r1", 0), ("r2", 4)]


@pytest.mark.parametrize("router", ROUTERS)
def test_a_small_workload_s_smallest_share_is_said(router):
    world = World(router=router, replicas=1, steps=((10, None),))
    world.release("t2")
    world.until(at_weight(world, 10))
    if router == "replicas":
        assert desired(world) == [("r1", 1), ("r2", 1)]
    world.promote()
    world.to_the_end()
    assert desired(world) == [("r1", 0), ("r2", 1)]


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("seed", range(100))
def test_whatever_people_do_and_whoever_is_killed_nobody_loses_a_request(router, seed):
    world = World(seed, router=router, replicas=1 + seed % 7, surge=seed % 3, steps=(10, 25, 60), pause=seed % 4)
    rng = world.rng
    world.kill_share = rng.choice((0.0, 0.0, 0.3))
    template = 2
    world.release("t2")
    for _ in range(8):
        world.play(rng.uniform(1, 25))
        match rng.randrange(8):
            case 0:
                template += 1
                world.release(f"t{template}")
            case 1:
                world.ask(wish="abort")
            case 2:
                world.ask(wish="")
            case 3:
                world.ask(paused=not world.spec.paused)
            case 4:
                world.promote(rng.choice((1, FULL)))
            case 5:
                world.steps(*sorted(rng.sample(range(0, 101), rng.randint(1, 3))), pause=rng.choice((0.0, 3.0)))
            case 6:
                world.play(10)
            case 7:
                world.release(rng.choice(world.revisions).template)  # what stands already, or is on its way out
    world.ask(paused=False, wish="")
    serving = world.revision(world.status.stable) or world.revisions[0]
    world.release(rng.choice((f"t{template + 1}", serving.template)))
    world.kill_share = 0.0
    # Who asks for what serves while all goes back to it already has got it, by an abort.
    if world.status.phase == "aborting" and world.target == serving.template:
        world.until(lambda: world.status.phase in ("done", "aborted"))
        world.to_the_end(world.status.phase)
    else:
        world.to_the_end()
    assert [one.template for one in world.revisions if one.desired] == [world.target]
    assert world.available_min >= min(world.replicas - world.unavailable, world.replicas)
    assert sum(one.desired for one in world.revisions) == world.replicas
    assert list(world.selectors) == ["web"] and (world.fork is None or not world.fork.is_borrowed)
    assert REVISION_LABEL not in world.selectors["web"] or router == "httproute"


@pytest.mark.parametrize("router", ROUTERS)
def test_a_plan_is_told_to_its_end_with_every_promotion_that_it_takes(router, golden):
    world = World(router=router, steps=((25, None), (50, 10.0)), analysis=(SUCCESS,))
    world.turn()
    world.release("t2")
    found = foresee(world.scene())
    assert (found.phase, found.breaches) == ("done", ())
    golden(f"release/canary-{router}-plan.txt", "\n".join(found.lines()) + "\n")


@pytest.mark.parametrize("router", ROUTERS)
def test_a_rollback_goes_straight_back_past_every_step_and_analysis(router):
    world = World(router=router, steps=((25, None), (50, None)), analysis=(SUCCESS,))
    world.release("t2")
    world.until(at_weight(world, 25))
    world.promote(FULL)
    world.to_the_end()
    world.judge = lambda name, at: Finding(None, "nobody is there")
    began = world.now
    world.release("t1", rollback_to="r1")
    world.to_the_end()
    assert desired(world) == [("r1", 4)] and world.now - began < 45, world.text()


@pytest.mark.parametrize("router", ROUTERS)
def test_a_canary_that_somebody_deletes_is_aborted(router):
    world = World(router=router, steps=((25, None),))
    world.release("t2")
    world.until(at_weight(world, 25))
    world.revisions.remove(world.revision("r2"))
    world.until(lambda: world.phase() == "aborted")
    assert "r2 had traffic, and its Deployment is gone" in world.status.reason
    as_it_was(world)
    assert world.wrong == []
