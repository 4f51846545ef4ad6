"""bluegreen, told forward (``bluegreen_world``): what it does and why, whoever asks for what meanwhile."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from bluegreen_world import Story, spec_of

from tidegate.release.foresee import Pace
from tidegate.release.guard import breaches
from tidegate.release.plan import Act
from tidegate.release.scene import REVISION_LABEL
from tidegate.release.strategies import decide

SEEDS = range(100)


def sound(story):
    assert story.short == []
    assert story.world.breaches == []


def played(story, phase, serving, counts):
    sound(story)
    assert (story.phase, story.serving(), story.counts()) == (phase, serving, counts), story.text()
    return story.text()


def flipped(world):
    return world.status.step >= 1


def settled(world):
    return world.status.step >= 2


def created(world):
    return len(world.revs) > 1


def test_the_first_time(golden):
    story = Story().go()
    golden("release/bluegreen-first.txt", played(story, "done", "r2", {"r1": 4, "r2": 4}))


def test_the_second_time_the_one_before_is_retired(golden):
    story = Story().go().ask("t3", restart="3").go()
    golden("release/bluegreen-second.txt", played(story, "done", "r3", {"r1": 0, "r2": 4, "r3": 4}))


def test_a_warm_revision_is_retired_when_its_time_is_over(golden):
    story = Story(spec_of(keep_seconds=30)).go()
    golden("release/bluegreen-kept.txt", played(story, "done", "r2", {"r1": 0, "r2": 4}))


def test_a_warm_revision_is_retired_when_somebody_says_so():
    story = Story().go().ask(retire=("r1",)).go()
    played(story, "done", "r2", {"r1": 0, "r2": 4})


def test_it_waits_for_somebody_to_promote_it(golden):
    story = Story(spec_of(promote="manual", preview="web-next")).go()
    assert (story.phase, story.serving()) == ("paused", "r1")
    assert story.world.ways["web-next"][REVISION_LABEL] == "r2"
    story.ask(promoted=1).go()
    golden("release/bluegreen-manual.txt", played(story, "done", "r2", {"r1": 4, "r2": 4}))


def test_a_pod_that_falls_over_while_somebody_makes_up_his_mind_is_waited_for():
    story = Story(spec_of(promote="manual")).go()
    story.world.now += 10 * story.world.spec.progress_seconds
    del story.world.revs[1].pods[:2]
    story.go()
    assert (story.phase, story.serving(), story.counts()) == ("paused", "r1", {"r1": 4, "r2": 4}), story.text()
    story.ask(promoted=1).go()
    played(story, "done", "r2", {"r1": 4, "r2": 4})


def test_an_abort_before_the_flip_asks_nobody_and_leaves_no_trace(golden):
    story = Story().until(created).ask(wish="abort").go()
    assert not any("ask whether" in getattr(one, "text", "") for one in story.moments)
    assert "tidegate-release-web" not in story.world.ways
    golden("release/bluegreen-abort-before.txt", played(story, "aborted", "r1", {"r1": 4}))


def test_an_abort_after_the_flip_is_one_write_and_then_asked_about(golden):
    story = Story().go().ask(wish="abort").go()
    golden("release/bluegreen-abort-after.txt", played(story, "aborted", "r1", {"r1": 4}))


def test_what_was_aborted_can_be_asked_for_again():
    story = Story().go().ask(wish="abort").go().ask(wish="").go()
    played(story, "done", "r3", {"r1": 4, "r3": 4})  # under another name: r2 is history


def test_a_rollback_while_warm_is_at_once(golden):
    story = Story().go()
    began = story.world.now
    told = len(story.moments)
    story.ask("t1", rollback_to="r1").until(settled)
    assert story.moments[told + 1].step.act is Act.RETARGET
    assert story.world.now - began <= 1.0  # the observers' answer, nothing else
    story.go()
    golden("release/bluegreen-rollback.txt", played(story, "done", "r1", {"r1": 4, "r2": 4}))


@pytest.mark.parametrize("name", ["r1", "5d8f7c9b6"])
def test_a_rollback_is_asked_for_once_by_whatever_name_the_revision_had(name):
    """A rolling release called it by its hash; who promotes by hand has said by `rollback` what he wants."""
    story = Story(spec_of(promote="manual")).go().ask(promoted=1).go()
    assert story.serving() == "r2"
    began = len(story.moments)
    story.ask("t1", rollback_to=name).go()
    played(story, "done", "r1", {"r1": 4, "r2": 4})
    assert not any("promote" in str(one) for one in story.moments[began:]), story.text()


def test_a_rollback_to_one_that_is_retired_makes_its_pods_first():
    story = Story(spec_of(keep_seconds=0)).go()
    told = len(story.moments)
    story.ask("t1", rollback_to="r1").go()
    acts = [one.step.act for one in story.moments[told + 1 :] if one.step]
    assert acts[:3] == [Act.SCALE, Act.EXPOSE, Act.RETARGET]  # their labels are asked about like any other's
    played(story, "done", "r1", {"r1": 4})


@pytest.mark.parametrize(("moment", "until"), [("created", created), ("flipped", flipped), ("settled", settled)])
def test_superseded_whatever_has_the_traffic_keeps_it_until_the_third_is_routed(golden, moment, until):
    story = Story().until(until)
    before = story.serving()
    story.ask("t3", restart="3").until(lambda world: any(one.edition.revision == "r3" for one in world.revs))
    assert story.serving() == before
    story.go()
    kept = "r2" if moment == "settled" else "r1"
    counts = {"r1": 4 if kept == "r1" else 0, "r3": 4} | ({"r2": 4} if kept == "r2" else {})
    golden(f"release/bluegreen-superseded-{moment}.txt", played(story, "done", "r3", counts))


def test_an_abort_of_the_third_goes_back_to_the_second_that_all_were_known_to_route_to():
    story = Story().until(settled).ask("t3", restart="3").until(flipped).ask(wish="abort").go()
    assert (story.phase, story.serving()) == ("aborted", "r2")
    sound(story)


def test_a_bad_image_halts_with_its_reason_and_traffic_stays(golden):
    never = Pace(ready=lambda pod: float("inf"), problem="ErrImagePull: nowhere/web:v9")
    story = Story(spec_of(), never).go()
    assert "ErrImagePull" in story.status.reason and "traffic stays on r1" in story.status.reason
    assert (story.phase, story.serving()) == ("halted", "r1")
    story.ask(wish="abort").go()
    golden("release/bluegreen-bad-image.txt", played(story, "aborted", "r1", {"r1": 4}))


def test_a_halted_release_goes_on_when_somebody_resumes_it_and_pods_have_come():
    late = {"ready": float("inf")}
    story = Story(spec_of(), Pace(ready=lambda pod: late["ready"])).go()
    assert story.phase == "halted"
    for pod in story.world.revs[1].pods:
        pod.ready_at = story.world.now
    story.ask(paused=False).go()
    played(story, "done", "r2", {"r1": 4, "r2": 4})


def test_scaled_mid_way_the_new_one_follows_and_the_warm_one_keeps_room(golden):
    story = Story(spec_of(promote="manual")).go()
    story.scale("r1", 6).go()
    assert story.counts() == {"r1": 6, "r2": 6}
    story.scale("r1", 5).go()
    assert story.counts() == {"r1": 5, "r2": 5}
    story.ask(promoted=1).go().scale("r2", 7).go()
    golden("release/bluegreen-scaled.txt", played(story, "done", "r2", {"r1": 7, "r2": 7}))


def test_the_autoscaler_goes_with_the_traffic(golden):
    story = Story(autoscaler="web").go()
    scalers = [one.edition.autoscaler for one in story.world.revs]
    assert scalers == ["", "web"]
    story.ask(wish="abort").go()
    assert story.world.revs[0].edition.autoscaler == "web"
    golden("release/bluegreen-autoscaler.txt", played(story, "aborted", "r1", {"r1": 4}))


@pytest.mark.parametrize("dies_after", [-1, *range(5, 9)])
def test_an_abort_after_the_old_pods_have_ended_makes_them_first_and_takes_the_selector_for_its_own(dies_after):
    story = Story(spec_of(keep_seconds=0)).go()
    assert story.counts() == {"r1": 0, "r2": 4}
    story.dies_after = dies_after
    played(story.ask(wish="abort").go(), "aborted", "r1", {"r1": 4})
    assert "halted" not in story.text()


def test_a_new_revision_whose_pods_lost_their_gate_is_not_flipped_to():
    """A webhook of the cluster may take hooks off pods: nobody could drain them."""
    story = Story().go(1.0)
    coming = story.world.revs[-1]
    for one in coming.pods:
        one.is_gated = False
    story.go()
    assert story.phase == "halted" and "have no gate" in story.status.reason
    assert story.serving() == "r1"
    story.ask(wish="abort").go()
    assert story.phase == "aborted" and story.serving() == "r1"


def test_pods_without_a_gate_end_as_they_are_once_nobody_sends_to_them(golden):
    story = Story(spec_of(keep_seconds=10), gated=False).go()
    assert all(how == "verified" for how in story.world.endings.values())
    assert story.world.most_pods == 8, "no twin is made"
    golden("release/bluegreen-ungated.txt", played(story, "done", "r2", {"r1": 0, "r2": 4}))


def test_by_a_label_of_the_users_own_both_serve_until_the_flip(golden):
    story = Story(spec_of(by="version", name="web-42", together=True)).until(created)
    assert story.serving() == ""  # the shared selector, as it was
    story.go()
    assert not any(one.step and one.step.act is Act.LABEL for one in story.moments)
    assert story.phase == "done"
    golden("release/bluegreen-by-version.txt", story.text())


def test_a_selector_changed_by_another_hand_is_left_until_somebody_decides():
    story = Story().go()
    story.world.ways["web"][REVISION_LABEL] = "r1"
    story.go()
    assert (story.phase, story.serving()) == ("halted", "r1") and "by another hand" in story.status.reason
    story.ask(paused=False).go()
    played(story, "done", "r2", {"r1": 4, "r2": 4})


def test_a_selector_widened_by_another_hand_before_the_flip_halts_too():
    story = Story(spec_of(promote="manual")).go()
    del story.world.ways["web"][REVISION_LABEL]
    story.ask(promoted=0).go(1)
    story.world.ways["web"].pop(REVISION_LABEL, None)
    story.go()
    assert story.phase == "halted" and "=any by another hand" in story.status.reason, story.text()
    story.ask(paused=False).go()
    assert (story.phase, story.serving()) == ("paused", "r1")  # narrowed again
    story.ask(promoted=1).go()
    played(story, "done", "r2", {"r1": 4, "r2": 4})


def test_an_abort_of_what_another_hand_turned_back_is_asked_about_all_the_same():
    story = Story().go()
    story.world.ways["web"][REVISION_LABEL] = "r1"
    story.ask(wish="abort").go()
    asked = [one.text for one in story.moments if getattr(one, "step", None) and one.step.act is Act.ASK]
    assert any("whether r2 is unrouted" in one for one in asked)
    played(story, "aborted", "r1", {"r1": 4})


def test_a_selector_of_no_revision_of_this_release_halts():
    story = Story().go()
    story.world.ways["web"][REVISION_LABEL] = "r77"
    story.short.clear()
    assert decide(story.world.scene()).status.phase == "halted"


def test_without_its_service_it_halts_and_says_where():
    story = Story()
    story.world.ways.clear()
    decision = decide(story.world.scene())
    assert decision.status.phase == "halted" and "$.spec.bluegreen.service" in decision.status.reason
    assert decision.steps == ()


def test_a_workload_of_no_pods_is_not_moved():
    story = Story(replicas=0, floor=0)
    story.world.revs[0].pods.clear()
    story.go(60)
    assert "scale it up" in story.status.reason and story.counts() == {"r1": 0}


def test_observers_that_never_answer_keep_the_flip_from_being_done():
    story = Story(spec_of(), Pace(fence=lambda question: float("inf")))
    story.go(600)
    assert (story.phase, story.status.step, story.counts()) == ("progressing", 1, {"r1": 4, "r2": 4})
    story.ask(wish="abort")
    story.world.pace = Pace()
    story.go()
    played(story, "aborted", "r1", {"r1": 4})


def test_nothing_is_shrunk_while_the_new_revision_is_not_ready():
    story = Story(spec_of(keep_seconds=60)).until(settled)
    for pod in story.world.revs[1].pods:
        pod.ready_at = float("inf")
    story.short.clear()
    story.go(600)
    assert story.counts() == {"r1": 4, "r2": 4} and "nothing is shrunk meanwhile" in story.status.reason


# --- killed anywhere ---

WISHES = {
    "first": lambda story: story.go(),
    "second": lambda story: story.go().ask("t3", restart="3").go(),
    "kept": lambda story: story.ask(retire=("r1",)).go(),
    "abort": lambda story: story.until(flipped).ask(wish="abort").go(),
    "rollback": lambda story: story.go().ask("t1", rollback_to="r1").go(),
    "superseded": lambda story: story.until(flipped).ask("t3", restart="3").go(),
    "ungated": lambda story: story.ask(retire=("r1",)).go(),
}


@pytest.mark.parametrize("name", WISHES)
def test_killed_before_any_write_the_next_engine_ends_the_same(name):
    def told(dies_after):
        story = Story(dies_after=dies_after, gated=name != "ungated")
        WISHES[name](story)
        sound(story)
        return story, (story.phase, story.serving(), story.counts(), sorted(story.world.ways))

    story, end = told(-1)
    assert end[0] in ("done", "aborted") and story.writes > 3
    for number in range(story.writes):
        assert told(number)[1] == end, number


# --- whatever happens ---


def drawn(seed):
    """A world that is slow as it likes, and people who ask for things at any moment."""
    rng = random.Random(f"bluegreen/{seed}")
    pace = Pace(
        ready=lambda pod: rng.uniform(0.5, 20),
        end=lambda pod: rng.uniform(0.1, 30),
        fence=lambda question: rng.choice((0.5, 1.2, 40.0)),
    )
    spec = spec_of(
        promote=rng.choice(("auto", "manual")),
        keep_seconds=rng.choice((None, 0.0, 20.0)),
        preview=rng.choice(("", "web-next")),
        together=rng.random() < 0.2,
    )
    story = Story(spec, pace, gated=rng.random() < 0.7, autoscaler=rng.choice(("", "web")))
    story.asked = []
    for _ in range(rng.randint(1, 8)):
        story.go(rng.uniform(0, 40))
        _anything(story, rng)
        if rng.random() < 0.3:
            story.dies_after = story.writes
    return story


def _anything(story, rng):
    choice = rng.randrange(9)
    spec = story.world.spec
    match choice:
        case 0:
            number = 2 + len(story.asked)
            story.asked.append(number)
            story.ask(f"t{number + 1}", restart=str(number + 1), wish="", rollback_to="")
        case 1:
            story.ask(wish="abort")
        case 2:
            story.ask(wish="", paused=False)
        case 3:
            story.ask(promoted=spec.promoted + 1)
        case 4:
            story.ask(paused=not spec.paused)
        case 5:
            served = story.serving()
            if served:
                story.scale(served, rng.randint(3, 8))
        case 6:
            story.ask(retire=(story.status.stable,))
        case 7:
            story.ask(rng.choice(story.world.revs).edition.fingerprint, wish="", rollback_to="")  # what stands already
        case _:
            stable = next(
                (one.edition for one in story.world.revs if one.edition.revision == story.status.stable), None
            )
            if stable is not None and spec.wish != "abort":
                story.ask(stable.fingerprint, rollback_to=stable.revision)


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_is_asked_for_whenever_the_guard_and_the_floor_hold(seed):
    story = drawn(seed)
    sound(story)
    story.ask(paused=False, promoted=story.world.spec.promoted + 1)
    story.go()
    sound(story)
    is_by_hand = "ended ungated" in story.status.reason  # somebody shrank what has no gate
    assert story.phase in ("done", "aborted", "paused") or is_by_hand, story.text()
    assert story.serving() in story.counts()
    if story.phase == "done":
        assert story.world.scene().edition(story.serving()).fingerprint == story.world.target, story.text()
    assert breaches(story.world.scene(), story.decision) == ()
