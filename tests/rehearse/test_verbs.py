"""Whatever breaks, the verbs keep their word; and the judge would see it if they did not."""

from __future__ import annotations

import pytest

from tidegate.engine import act
from tidegate.kube.api import PODS
from tidegate.lab.apiserver.local import LocalApi
from tidegate.model import pod
from tidegate.model.names import DrainResult, Ending, encode_result
from tidegate.rehearse.verbs import deeds
from tidegate.rehearse.verbs.camera import Camera, Filmed, Frame
from tidegate.rehearse.verbs.judge import Case, judge
from tidegate.rehearse.verbs.play import Outcome, play
from tidegate.rehearse.verbs.scene import Scene

SEEDS = (10, 14, 22)


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    return [play(seed, shuffle=seed % 2 == 1) for seed in SEEDS]


def test_no_promise_is_broken(outcomes):
    assert [(one.seed, one.findings) for one in outcomes if one.findings] == []


def test_the_stories_have_verbs_of_every_ending(outcomes):
    words = {word for one in outcomes for word in one.words}
    assert {"verified", "killed", "refused", "timed-out"} <= words
    assert sum(one.faults for one in outcomes) > 30


def test_the_same_seed_tells_the_same_story(outcomes):
    assert play(SEEDS[2]).digest == outcomes[2].digest


def findings(seed):
    return " | ".join(play(seed).findings)


def test_a_cut_that_is_called_verified_before_it_is_shows(monkeypatch):
    async def lie(client, namespace, name, options):
        return DrainResult(Ending.VERIFIED)

    monkeypatch.setattr(deeds, "cut_pod", lie)
    found = findings(14)
    assert " s after: " in found
    assert "routed svc/" in found
    assert "a connection" in found


def test_a_drain_that_deletes_without_looking_shows(monkeypatch):
    async def rush(client, namespace, name, options):
        one = pod.decode(await client.get(PODS, name, namespace))
        await act.annotate(client, one, encode_result(DrainResult(Ending.VERIFIED)))
        await client.delete(PODS, name, namespace)
        return DrainResult(Ending.VERIFIED)

    monkeypatch.setattr(deeds, "drain_pod", rush)
    found = findings(30)
    assert "routed to" in found
    assert "is verified and lost a request" in found


@pytest.mark.parametrize(("others", "is_found"), [(0, True), (1, False)])
def test_a_cut_below_the_floor_shows(others, is_found):
    scene = Scene({"echo": 2}, {"echo": {"app": "echo"}}, False, True, 3, 0, 1)
    camera = Camera(LocalApi.__new__(LocalApi))
    camera.selectors["echo"] = [(0.0, {"app": "echo"})]
    serving, cut = (("app", "echo"),), (("app", "tidegate-cut"), ("tidegate.dev/held", "cut"))
    for index in range(others + 1):
        camera.pods[f"uid-{index}"] = Filmed(f"echo-{index}", f"uid-{index}")
        camera.pods[f"uid-{index}"].frames.append(Frame(1.0, serving, True, False, "rs"))
    camera.pods["uid-0"].frames.append(Frame(50.0, cut, True, False, ""))
    found = judge(Case(scene, camera, (), (), ())).findings
    assert (found == ("the cut of echo-0 at 50.00 left svc/echo 0 of 1 pods",)) is is_found
    assert bool(found) is is_found


def test_a_restore_that_forgets_the_labels_shows(monkeypatch):
    async def forget(client, target, options):
        return DrainResult(Ending.VERIFIED)

    monkeypatch.setattr(deeds, "restore_pod", forget)
    monkeypatch.setattr(deeds, "drain_pod", lambda client, namespace, name, options: forget(client, name, options))
    assert "has the label tidegate.dev/held=cut" in findings(14)
