"""Analyses on both sides of the flip, told forward (``bluegreen_world``): what has to pass, and what becomes of it."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from bluegreen_world import Story, spec_of

from tidegate.release.foresee import Pace, foresee
from tidegate.release.guard import breaches
from tidegate.release.plan import Act, Decision, Step
from tidegate.release.proving import FULL
from tidegate.release.scene import REVISION_LABEL
from tidegate.release.spec import FlipAnalysis

SMOKE = FlipAnalysis("smoke", "http", url="http://web-next/smoke", interval_seconds=2, when="before")
RATE = FlipAnalysis(
    "rate", "prometheus", url="http://p:9090", query="q", success=">= 0.99", interval_seconds=5, when="after"
)
BOTH = (SMOKE, RATE)


class Judge:
    """What each analysis answers, by name: True, False, or None for a problem. Prometheus can be reached unless
    ``is_silent``."""

    def __init__(self, **answers):
        self.answers, self.is_silent = answers, False
        self.asked = []

    def __call__(self, key, at):
        moment, name, _ = key.split("/")
        self.asked.append((moment, name))
        if moment == "before":
            return None if self.is_silent else True
        found = self.answers.get(name, True)
        return found(at) if callable(found) else found


def story_of(judge, analysis=BOTH, pace=None, dies_after=-1, **fields):
    spec = spec_of(analysis=analysis, **fields)
    return Story(spec, pace or Pace(measured=judge), dies_after=dies_after)


def sound(story):
    assert story.short == []
    assert story.world.breaches == []


def texts(story):
    return [getattr(one, "text", one) for one in story.moments]


def acts(story):
    return [one.step.act for one in story.moments if getattr(one, "step", None)]


def least(story, revision):
    """The fewest pods that a revision was asked to have."""
    steps = [one.step for one in story.moments if getattr(one, "step", None)]
    return min([one.count for one in steps if one.act is Act.SCALE and one.subject == revision], default=4)


def test_what_passes_on_both_sides_goes_on_and_blue_is_shrunk_afterwards(golden):
    judge = Judge()
    story = story_of(judge, preview="web-next", keep_seconds=0.0).go()
    sound(story)
    assert (story.phase, story.serving(), story.counts()) == ("done", "r2", {"r1": 0, "r2": 4})
    order = [text.partition(":")[0].removeprefix("measure ") for text in texts(story)]
    flip, shrunk = order.index(f"retarget svc/web {REVISION_LABEL}=r2"), order.index("scale r1 to 0")
    assert order.index("smoke") < flip < len(order) - order[::-1].index("rate") - 1 < shrunk
    assert judge.asked == [("before", "rate"), *[("flip", "smoke")] * 3, *[("flipped-2", "rate")] * 3]
    golden("release/bluegreen-analysis.txt", story.text())


def test_before_the_flip_a_failure_aborts_and_traffic_never_moved(golden):
    story = story_of(Judge(smoke=False), preview="web-next").go()
    sound(story)
    assert (story.phase, story.serving(), story.counts()) == ("aborted", "r1", {"r1": 4})
    assert story.status.reason.startswith("http smoke failed 1 of 1 before the flip: ") and "r1 has all" in (
        story.status.reason
    )
    marks = [text for text in texts(story) if text.startswith("retarget svc/web ") and f"{REVISION_LABEL}=r2" in text]
    assert marks == []
    golden("release/bluegreen-analysis-before.txt", story.text())


def test_after_the_flip_a_failure_goes_back_in_one_write_and_blue_was_whole(golden):
    story = story_of(Judge(rate=False), keep_seconds=0.0).go()
    sound(story)
    assert (story.phase, story.serving(), story.counts()) == ("aborted", "r1", {"r1": 4})
    assert story.status.reason.startswith("prometheus rate failed 1 of 1 after the flip: ")
    assert least(story, "r1") == 4
    told = acts(story)
    last = max(number for number, act in enumerate(told) if act is Act.MEASURE)
    assert told[last + 1] is Act.RETARGET  # nothing else first
    golden("release/bluegreen-analysis-after.txt", story.text())


def test_after_an_abort_of_its_own_it_stays_so_until_somebody_asks_again():
    judge = Judge(rate=False)
    story = story_of(judge).go().go(600)
    assert (story.phase, story.serving()) == ("aborted", "r1")
    judge.answers.clear()
    story.ask(paused=False).go()
    sound(story)
    assert (story.phase, story.serving()) == ("done", "r3")


@pytest.mark.parametrize("is_silent", [True, False])
def test_a_prometheus_that_cannot_be_asked_pauses_before_a_pod_is_made(is_silent):
    judge = Judge()
    judge.is_silent = is_silent
    story = story_of(judge).go(120)
    if is_silent:
        assert story.phase == "paused" and story.status.reason.endswith("traffic stays on r1"), story.text()
        assert Act.CREATE not in acts(story) and story.counts() == {"r1": 4}
        judge.is_silent = False
    story.go()
    sound(story)
    assert (story.phase, story.serving()) == ("done", "r2")


def test_a_problem_before_the_flip_is_no_success_and_no_failure():
    judge = Judge(smoke=None)
    story = story_of(judge).go(300)
    assert (story.phase, story.serving(), story.counts()) == ("paused", "r1", {"r1": 4, "r2": 4}), story.text()
    assert story.status.reason.startswith("http smoke: ") and story.status.reason.endswith("traffic stays on r1")
    judge.answers.clear()
    story.go()
    sound(story)
    assert (story.phase, story.serving()) == ("done", "r2")


def test_a_problem_after_the_flip_holds_blue_and_pauses():
    judge = Judge(rate=None)
    story = story_of(judge, keep_seconds=0.0).go(3600)
    sound(story)
    assert (story.phase, story.serving(), story.counts()) == ("paused", "r2", {"r1": 4, "r2": 4}), story.text()
    assert story.status.reason.endswith("r2 has the traffic, r1 is kept for the way back")
    story.ask(retire=("r1",)).go(600)
    assert story.counts() == {"r1": 4, "r2": 4}, "not even where somebody wants it retired"
    judge.answers.clear()
    story.go(60).go()
    sound(story)
    assert (story.phase, story.counts()) == ("done", {"r1": 0, "r2": 4})


def test_of_two_one_that_cannot_be_asked_does_not_hide_the_other_that_fails():
    other = msgspec.structs.replace(SMOKE, name="errors", when="after", count=9)
    judge = Judge(rate=None, errors=lambda at: at < 20)
    story = story_of(judge, (RATE, other)).go()
    sound(story)
    assert (story.phase, story.serving()) == ("aborted", "r1")
    assert story.status.cause.startswith("http errors failed 1 of ")


def test_blue_grows_with_green_while_it_is_kept_for_an_analysis():
    story = story_of(Judge(rate=None), keep_seconds=0.0).go(600).scale("r2", 7).go(60)
    assert story.counts() == {"r1": 7, "r2": 7}
    story.ask(wish="abort").go()
    sound(story)
    assert (story.phase, story.serving(), story.counts()) == ("aborted", "r1", {"r1": 7})


def test_what_a_person_promotes_has_passed_before():
    judge = Judge()
    story = story_of(judge, promote="manual", preview="web-next").go()
    assert story.phase == "paused" and "`release promote` flips" in story.status.reason
    assert [name for _, name in judge.asked].count("smoke") == 3
    story.ask(promoted=1).go()
    sound(story)
    assert story.phase == "done" and [name for _, name in judge.asked].count("smoke") == 3


def test_a_promotion_that_comes_early_lets_no_analysis_pass_and_a_full_one_does():
    story = story_of(Judge(smoke=None), promote="manual").go(60).ask(promoted=1).go(300)
    assert (story.phase, story.serving()) == ("paused", "r1")
    story.ask(promoted=FULL).go()
    sound(story)
    assert (story.phase, story.serving()) == ("done", "r2")


def test_a_rollback_is_not_analysed():
    judge = Judge()
    story = story_of(judge).go()
    judge.answers = {"smoke": False, "rate": False}
    judge.is_silent = True
    asked = len(judge.asked)
    story.ask("t1", rollback_to="r1").go()
    sound(story)
    assert (story.phase, story.serving(), len(judge.asked)) == ("done", "r1", asked)


def test_a_flip_that_another_hand_turned_back_is_analysed_anew():
    judge = Judge(rate=None)
    story = story_of(judge, (RATE,)).go(60)
    story.world.ways["web"][REVISION_LABEL] = "r1"
    story.go(30)
    assert story.phase == "halted"
    judge.answers = {"rate": False}
    story.ask(paused=False).go(60).go()
    assert (story.phase, story.serving()) == ("aborted", "r1")
    moments = {moment for moment, name in judge.asked if name == "rate"}
    assert len(moments) == 3, moments  # whether it can be reached, and once for each flip


def test_a_third_asked_for_before_it_has_passed_goes_back_to_the_first():
    judge = Judge(rate=None)
    story = story_of(judge).go(120)
    assert story.serving() == "r2"
    story.ask("t3", restart="3").go(120)
    assert story.serving() == "r3"
    judge.answers = {"rate": False}
    story.go(60).go()
    sound(story)
    assert (story.phase, story.serving(), story.counts()) == ("aborted", "r1", {"r1": 4})


def test_what_is_asked_for_when_it_is_done_is_asked_of_the_next():
    story = story_of(Judge(rate=False), (), keep_seconds=600.0).go(60)
    flip = msgspec.structs.replace(story.world.spec.bluegreen, analysis=BOTH)
    story.ask(bluegreen=flip).go()
    sound(story)
    assert (story.phase, story.counts()) == ("done", {"r1": 0, "r2": 4})


def test_both_serve_before_the_flip_and_a_failure_there_takes_the_new_one_out_again():
    story = story_of(Judge(smoke=False), (SMOKE,), by="version", together=True).go()
    sound(story)
    assert (story.phase, story.serving(), story.counts()) == ("aborted", "4.1", {"r1": 4})


def test_a_pod_that_falls_over_while_it_is_tried_for_long_is_waited_for():
    long = msgspec.structs.replace(SMOKE, interval_seconds=60, count=60)
    story = story_of(Judge(), (long,)).go(3000)
    story.world.revs[1].pods[0].ready_at = story.world.now + 30
    story.go(10)
    assert story.phase == "progressing" and "3 of 4" in story.status.reason, story.status.reason
    story.go()
    assert story.phase == "done"


def test_the_guard_lets_nobody_shrink_blue_before_it_has_passed():
    story = story_of(Judge(rate=None)).go(60)
    shrink = Step(Act.SCALE, "r1", "because", count=0)
    assert "has not passed" in breaches(story.world.scene(), Decision((shrink,), story.status))[0]
    story.ask(wish="abort")
    assert not [one for one in breaches(story.world.scene(), Decision((shrink,), story.status)) if "passed" in one]


def test_the_plan_tells_what_is_asked_and_when():
    story = story_of(Judge(), preview="web-next")
    found = [one.text for one in foresee(story.world.scene()).moments if "measure" in one.text]
    assert [one.partition(": ")[2] for one in dict.fromkeys(found)] == [
        "prometheus rate before any traffic moves",
        "http smoke before the flip",
        "prometheus rate after the flip",
    ]


ENDS = {"pass": {}, "before": {"smoke": False}, "after": {"rate": False}}


@pytest.mark.parametrize("name", ENDS)
def test_killed_before_any_write_the_next_engine_ends_the_same(name):
    def told(dies_after):
        story = story_of(Judge(**ENDS[name]), preview="web-next", keep_seconds=0.0, dies_after=dies_after).go()
        sound(story)
        return story, (story.phase, story.serving(), story.counts(), sorted(story.world.ways))

    story, end = told(-1)
    assert end[0] == ("done" if name == "pass" else "aborted") and story.writes > 3
    for number in range(story.writes):
        assert told(number)[1] == end, number


@pytest.mark.parametrize("seed", range(100))
def test_whatever_is_answered_whenever_blue_is_whole_until_all_has_passed(seed):
    rng = random.Random(f"analysis/{seed}")
    judge = Judge(
        smoke=lambda at: rng.choice((True, True, True, None, False)), rate=lambda at: rng.choice((True, None, False))
    )
    pace = Pace(
        ready=lambda pod: rng.uniform(0.5, 20), fence=lambda question: rng.choice((0.5, 1.2, 40.0)), measured=judge
    )
    limits = [msgspec.structs.replace(one, failure_limit=rng.choice((0, 1)), count=rng.randint(1, 4)) for one in BOTH]
    fields = {"promote": rng.choice(("auto", "manual")), "keep_seconds": rng.choice((None, 0.0, 20.0))}
    fields |= {"preview": rng.choice(("", "web-next")), "together": rng.random() < 0.2}
    story = story_of(judge, tuple(limits), pace, **fields)
    for _ in range(rng.randint(1, 6)):
        story.go(rng.uniform(0, 60))
        spec = story.world.spec
        match rng.randrange(6):
            case 0:
                story.ask(wish="abort")
            case 1:
                story.ask(wish="", paused=False)
            case 2:
                story.ask(promoted=spec.promoted + 1)
            case 3:
                story.ask(retire=(story.status.stable,))
            case 4:
                number = len(story.moments)
                story.ask(f"t{number}", restart=str(number), wish="", rollback_to="")
            case _:
                story.dies_after = story.writes
    sound(story)
    judge.answers.clear()
    story.ask(paused=False, promoted=story.world.spec.promoted + 1)
    story.go()
    sound(story)
    assert story.phase in ("done", "aborted", "paused"), story.text()
    assert story.serving() in ("", *story.counts())  # "": aborted before the Service was told anything
