"""rainbow's planner, told forward over a world of pods and clients (``rainbow_world``)."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from rainbow_world import World

from tidegate.release.plan import Act
from tidegate.release.scene import REVISION_LABEL
from tidegate.release.shrinking import BUSY_COST, IDLE_COST
from tidegate.release.strategies import decide


def settled(world):
    """All new traffic goes where it was asked to."""
    return lambda: (
        world.status.fingerprint == world.target
        and world.status.stable == world.status.revision
        and world.routed_to in (None, world.status.revision)
    )


def release(world, number):
    world.release(f"t{number}")
    world.until(settled(world))


def test_six_releases_whose_clients_leave(golden):
    world = World(cap=6, replicas=2, retire_seconds=20)
    for number in range(2, 7):
        for stay in (40, 90):
            world.client(stay)
        release(world, number)
    world.client(3)
    assert [one.name for one in world.revisions] == ["r1", "r2", "r3", "r4", "r5", "r6"]
    world.until(lambda: world.phase() == "done")
    assert world.cut == world.lost == []
    assert [(one.name, one.desired) for one in world.revisions] == [("r1", 0), ("r6", 2)]
    assert world.retired == ["r2", "r3", "r4", "r5"]
    golden("release/rainbow-six.txt", world.text())


def test_at_the_cap_a_new_one_is_refused_with_a_reason_and_begins_when_one_has_drained(golden):
    world = World(cap=3, replicas=2)
    world.client(60)
    release(world, 2)
    world.client(90)
    release(world, 3)
    world.release("t4")
    world.play(5)
    assert world.phase() == "pending"
    assert world.status.reason.startswith("at most 3 revisions may live at once, and 3 do: r1 (1 connection), r2 (1 ")
    assert "r3 (serves); r4 begins when one has drained" in world.status.reason
    assert world.revision("r4") is None
    world.until(settled(world))
    assert world.now > 60 and world.pods("r1") == [] and world.pods("r2")
    world.until(lambda: world.phase() == "done")
    assert world.cut == world.lost == []
    golden("release/rainbow-cap.txt", world.text())


def test_work_that_comes_again_brings_a_drained_revision_back_before_it_is_retired(golden):
    world = World(cap=6, replicas=3, activity='metric:8080/metrics#queue{revision="{revision}"}', retire_seconds=30)
    release(world, 2)
    release(world, 3)
    world.until(lambda: world.pods("r2") == [])
    world.play(10)
    world.revision("r2").work = 2
    world.play(3)
    assert len(world.pods("r2")) == 2
    world.play(60)
    assert len(world.pods("r2")) == 2, "it has work: nobody is idle"
    world.revision("r2").work = 0
    world.until(lambda: world.phase() == "done")
    assert world.retired == ["r2"]
    golden("release/rainbow-revive.txt", world.text())


def test_the_users_own_deployment_stays_at_zero_and_is_revived_as_long_as_another_would_stand():
    world = World(activity='metric:8080/metrics#queue{revision="{revision}"}', retire_seconds=5)
    release(world, 2)
    world.until(lambda: world.pods("r1") == [])
    world.play(3)
    assert world.phase() == "progressing"
    world.revision("r1").work = 9
    world.play(20)
    assert world.revision("r1").desired == 3 and world.phase() == "progressing"
    world.revision("r1").work = 0
    world.until(lambda: world.phase() == "done")
    assert world.revision("r1").desired == 0 and world.retired == []


def test_what_is_not_known_is_kept(golden):
    world = World(replicas=3)
    world.revision("r1").pods[1].is_blind = True
    release(world, 2)
    world.play(300)
    assert world.pods("r1") == ["web-2"]
    assert world.phase() == "progressing" and "r1: 1 pod, 0 connections, not known at web-2" in world.status.reason
    world.ask(retire=("r1",))
    world.until(lambda: world.phase() == "done")
    assert world.cut == []
    golden("release/rainbow-unknown.txt", world.text())


def test_a_queue_that_cannot_be_read_keeps_its_pods_and_its_revision_at_zero():
    world = World(activity='metric:8080/metrics#queue{revision="{revision}"}', retire_seconds=5)
    release(world, 2)
    world.revision("r1").work = world.revision("r2").work = None
    release(world, 3)
    world.play(100)
    assert len(world.pods("r2")) == 3 and "r2: 3 pods, its work is not known" in world.status.reason
    world.revision("r2").work = 0
    world.until(lambda: world.pods("r2") == [])
    world.revision("r2").work = None
    world.play(100)
    assert world.revision("r2") is not None and "whether work waits for it is not known" in world.status.reason


def test_a_broken_version_never_gets_traffic_and_the_others_go_on(golden):
    world = World(cap=6, replicas=2)
    world.client(700)
    release(world, 2)
    world.broken.add("t3")
    world.release("t3")
    world.play(620)
    assert world.phase() == "halted"
    assert world.status.reason == "no progress for 600 s: pod/web-r3-1: ImagePullBackOff, traffic stays on r2"
    world.play(100)
    assert world.pods("r1") == [], "what drains is not held up by it"
    assert world.routed_to == "r2"
    world.ask(wish="abort")
    world.until(lambda: world.phase() == "aborted")
    assert world.retired == ["r3"] and world.routed_to == "r2" and world.cut == []
    golden("release/rainbow-broken.txt", world.text())


def test_back_to_a_revision_that_lives_is_one_flip(golden):
    world = World(replicas=3)
    world.client(500)
    world.client(500)
    world.client(500)
    release(world, 2)
    world.play(20)
    kept = world.pods("r1")
    began = len(world.log)
    at = world.now
    world.target = "t1"
    world.ask(rollback_to="r1")
    world.until(settled(world))
    assert "create" not in "".join(world.log[began:]) and world.now - at < 10
    assert set(kept) <= set(world.pods("r1")) and len(world.pods("r1")) == 3
    world.until(lambda: world.phase() == "done")
    assert world.retired == ["r2"] and world.cut == world.lost == []
    golden("release/rainbow-rollback.txt", world.text())


def test_superseded_half_way_the_one_between_drains_as_any_other(golden):
    world = World(cap=6, replicas=2)
    world.client(30)
    world.release("t2")
    world.until(lambda: world.selectors["web"].get(REVISION_LABEL) == "r2")
    world.play(1)
    world.client(50)
    world.release("t3")
    world.until(settled(world))
    world.until(lambda: world.phase() == "done")
    assert world.retired == ["r2"] and world.pods("r1") == [] and world.cut == world.lost == []
    golden("release/rainbow-superseded.txt", world.text())


def test_superseded_before_its_flip_abort_goes_back_to_the_one_with_the_traffic():
    world = World(cap=6, replicas=2)
    world.broken |= {"t2", "t3"}
    world.release("t2")
    world.until(lambda: world.revision("r2") is not None)
    world.release("t3")
    world.until(lambda: world.revision("r3") is not None)
    world.ask(wish="abort")
    world.until(lambda: world.phase() == "aborted")
    assert world.selectors["web"][REVISION_LABEL] == "r1" and world.pods("r1") == ["web-1", "web-2"]
    assert world.retired == ["r2", "r3"]


def test_abort_after_the_flip_and_before_it_is_known_everywhere_flips_back():
    world = World(replicas=2)
    world.release("t2")
    world.until(lambda: world.selectors["web"].get(REVISION_LABEL) == "r2")
    world.ask(wish="abort")
    world.until(lambda: world.phase() == "aborted")
    assert world.selectors["web"][REVISION_LABEL] == "r1" and world.retired == ["r2"]
    assert world.cut == world.lost == []


def test_killed_after_every_write_it_goes_on_from_what_it_finds(golden):
    def story(world, kill_at):
        """The ``kill_at``-th round with steps makes its first one and forgets everything."""
        rounds = 0
        world.client(20)
        world.release("t2")
        while world.phase() != "done":
            world.tick()
            before = world.status
            decision = world.look(1 if rounds == kill_at else None)
            if rounds == kill_at and decision.steps:
                world.status = before
            rounds += bool(decision.steps)
            assert world.now < 400, world.text()
        return rounds

    whole = World(replicas=2)
    total = story(whole, None)
    ends = [f"without: {total} rounds with steps, {whole.now:g} s"]
    for kill_at in range(total):
        world = World(replicas=2)
        rounds = story(world, kill_at)
        assert world.cut == world.lost == [] and world.pods("r1") == []
        ends.append(f"after the first step of round {kill_at + 1}: {rounds} rounds, {world.now:g} s")
    golden("release/rainbow-killed.txt", "\n".join(ends) + "\n")


def test_idle_pods_are_marked_to_go_first_and_the_busy_ones_last():
    world = World(replicas=3)
    world.revision("r1").pods[1].clients.append(500.0)
    release(world, 2)
    world.until(lambda: len(world.pods("r1")) == 1)
    costs = {one.name: one.cost for one in world.revision("r1").pods}
    assert costs == {"web-1": IDLE_COST, "web-2": BUSY_COST, "web-3": IDLE_COST}
    assert world.pods("r1") == ["web-2"] and world.cut == []


def test_a_busy_pod_that_is_not_ready_holds_all_since_it_would_be_the_first_to_go():
    world = World(replicas=3)
    ill = world.revision("r1").pods[1]
    ill.clients.append(100.0)
    release(world, 2)
    ill.is_ill = True
    world.play(60)
    assert len(world.pods("r1")) == 3
    assert "pod/web-2 is busy and not ready, it would be the first to go" in world.status.reason
    ill.is_ill = False
    world.until(lambda: len(world.pods("r1")) == 1)
    assert world.cut == []


def test_pods_without_a_gate_leave_by_name_once_they_are_idle():
    world = World(replicas=2, gated=False)
    world.revision("r1").pods[0].clients.append(60.0)
    release(world, 2)
    world.until(lambda: world.phase() == "done")
    drained = [line for line in world.log if "drain web-" in line]
    assert ["web-2" in line for line in drained] == [True, False] and "have no gate to end by" in drained[0]
    assert world.cut == []


def test_where_nobody_wants_to_wait_pods_without_a_gate_end_as_without_us():
    world = World(replicas=2, gated=False)
    world.ask(ungated="proceed")
    release(world, 2)
    world.until(lambda: world.pods("r1") == [])
    world.endings["web-1"] = "ungated: it had no gate, so nobody waited"
    world.until(lambda: world.phase() == "done")
    assert "drain web" not in world.text() and world.cut == []


def test_a_new_revision_whose_pods_have_no_gate_is_never_current():
    world = World(replicas=2)
    world.bare.add("t2")
    world.release("t2")
    world.play(60)
    assert world.phase() == "halted" and world.selectors["web"][REVISION_LABEL] == "r1"
    assert world.status.reason.startswith("web-r2-1, web-r2-2 of r2 have no gate")


def test_the_autoscaler_goes_on_with_the_one_that_serves_and_a_draining_one_has_none(golden):
    world = World(replicas=2)
    world.revision("r1").autoscaler = "web"
    world.client(40)
    release(world, 2)
    world.play(3)
    assert (world.revision("r1").autoscaler, world.revision("r2").autoscaler) == ("", "web")
    release(world, 3)
    world.until(lambda: world.phase() == "done")
    order = [line for line in world.log if "autoscale" in line or "scale r1" in line or "retarget" in line]
    golden("release/rainbow-autoscalers.txt", "\n".join(order) + "\n")


def test_a_revision_without_traffic_yet_is_not_made_smaller():
    world = World(replicas=3)
    world.boot_seconds = 60.0
    world.release("t2")
    world.play(120)
    assert "scale r2" not in world.text() and world.phase() in ("progressing", "done")


def test_paused_nothing_is_written():
    world = World(replicas=2)
    release(world, 2)
    world.ask(paused=True)
    began = len([line for line in world.log if "[" not in line])
    world.play(60)
    assert world.phase() == "paused" and len([line for line in world.log if "[" not in line]) == began
    world.ask(paused=False)
    world.until(lambda: world.phase() == "done")


def test_a_pod_that_ended_unverified_stops_the_shrinking_until_somebody_has_asked():
    world = World(replicas=2)
    world.client(30)
    release(world, 2)
    world.endings["web-9"] = "timed-out: node-3"
    world.play(60)
    assert (
        world.phase() == "halted" and world.status.reason == "pod/web-9 ended timed-out: node-3; see `tidegate ledger`"
    )
    assert len(world.pods("r1")) > 0
    world.ask()
    world.until(lambda: world.phase() == "done")


def test_without_a_service_the_old_ones_go_when_the_new_one_could_take_the_work():
    world = World(replicas=2, activity='metric:8080/metrics#queue{revision="{revision}"}', service="")
    world.selectors = {}
    world.revision("r1").work = 3
    world.release("t2")
    world.play(30)
    assert world.status.stable == "r2" and len(world.pods("r1")) == 2
    assert "retarget" not in world.text() and "ask" not in world.text()
    world.revision("r1").work = 0
    world.until(lambda: world.phase() == "done")


def test_without_a_service_named_what_a_service_lists_is_kept():
    world = World(replicas=2, service="")
    world.release("t2")
    world.play(30)
    assert len(world.pods("r1")) == 2
    assert "r1: a Service lists its pods, name it in $.spec.rainbow.service" in world.status.reason


def test_a_service_that_is_not_there_is_waited_for_by_name():
    world = World(service="shop")
    world.release("t2")
    world.play(10)
    assert world.phase() == "pending"
    assert world.status.reason == "$.spec.rainbow.service: there is no service/shop"


@pytest.mark.parametrize("seed", range(100))
def test_whatever_clients_and_people_do_nobody_is_cut_and_all_ends_retired(seed):
    world = World(
        seed, replicas=1 + seed % 4, cap=2 + seed % 5, idle_seconds=seed % 7, retire_seconds=10, gated=seed % 3 > 0
    )
    rng, number = world.rng, 1
    until = 300.0
    while world.now < until:
        world.tick()
        world.look()
        if rng.random() < 0.3:
            world.client(rng.expovariate(1 / rng.choice((2, 20, 60))))
        if rng.random() < 0.01:
            number += 1
            if rng.random() < 0.2:
                world.broken.add(f"t{number}")
            world.release(f"t{number}")
        if rng.random() < 0.01:
            world.ask(wish="abort")
        if rng.random() < 0.01:
            world.release(rng.choice(world.revisions).template)  # what stands already, or drains
        pods = [pod for one in world.revisions for pod in one.pods]
        if rng.random() < 0.02:
            rng.choice(pods).is_blind ^= True
        if rng.random() < 0.02:
            one = rng.choice(pods)
            one.is_ill = (
                not one.is_ill
                and world.routed_to is not None
                and not one.name.startswith("web-" + world.routed_to + "-")
            )
    for one in world.revisions:
        for pod in one.pods:
            pod.is_blind = pod.is_ill = False
    sound = [one.template for one in world.revisions if one.template not in world.broken]
    world.release(rng.choice((f"t{number + 1}", *sound)))
    world.until(settled(world))
    world.until(lambda: world.phase() == "done", within=900)
    assert world.revision(world.routed_to).template == world.target
    assert world.cut == []
    left = [one for one in world.revisions if one.desired]
    assert [one.name for one in left] == [world.routed_to] and len(world.revisions) <= 2


def test_pods_that_serve_are_given_the_question_about_every_revisions_work():
    world = World(replicas=2, activity='metric:8080/metrics#queue{revision="{revision}"}')
    release(world, 2)
    scene = world.scene()
    new = scene.edition("r2")
    bare = replace(new, members=tuple(replace(one, is_probed=False) for one in new.members))
    decision = decide(replace(scene, editions=(scene.edition("r1"), bare)))
    [step] = [step for step in decision.steps if step.subject == "r2"]
    assert (step.act, step.pods) == (Act.MARK, ("web-r2-1", "web-r2-2"))
    assert step.detail == {"work": world.spec.rainbow.activity}


def test_pods_that_drain_bear_the_probe_before_they_are_asked():
    world = World(replicas=2, activity="http:8080/activity")
    release(world, 2)
    world.play(1)
    scene = world.scene()
    old = scene.edition("r1")
    bare = replace(old, members=tuple(replace(one, is_probed=False, connections=None) for one in old.members))
    decision = decide(replace(scene, editions=(bare, scene.edition("r2"))))
    assert [dict(step.detail) for step in decision.steps if "activity" in step.detail] == [
        {"activity": "http:8080/activity"}
    ]


def test_a_selector_that_another_hand_has_changed_is_left_so():
    world = World(replicas=2)
    world.client(500)
    release(world, 2)
    world.selectors["web"][REVISION_LABEL] = "r1"
    world.play(5)
    assert world.phase() == "halted" and "by another hand: it is left so" in world.status.reason
    assert world.selectors["web"][REVISION_LABEL] == "r1" and world.revision("r2").desired == 2
    world.ask()
    world.play(10)
    assert world.selectors["web"][REVISION_LABEL] == "r2" and world.phase() == "progressing"
