"""What no plan may do, whichever strategy made it: a step that breaks each of the rules is refused, and says why."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from tidegate.release.guard import breaches
from tidegate.release.plan import Act, Decision, Step
from tidegate.release.record import Asked, Past, Status
from tidegate.release.scene import Edition, Member, Question, Scene, Way
from tidegate.release.spec import BlueGreen, Canary, Rainbow, Spec

STRATEGIES = {
    "bluegreen": {"bluegreen": BlueGreen(service="web")},
    "canary": {"canary": Canary(service="web")},
    "rainbow": {"rainbow": Rainbow(service="web")},
}


def pods(name, count=3, **fields):
    given = {"is_ready": True, "is_available": True, "is_listed": False, **fields}
    return tuple(Member(f"{name}-{number}", f"{name}-{number}", **given) for number in range(count))


R1 = Edition("r1", "web", "t1", 3, pods("r1", is_listed=True), is_base=True)
R2 = Edition("r2", "web-r2", "t2", 3, pods("r2"))
BARE1 = replace(R1, members=pods("r1", is_listed=True, is_gated=False), is_gated=False)
BARE2 = replace(R2, members=pods("r2", is_gated=False))
OUT1 = replace(BARE1, members=pods("r1", is_gated=False))
"""The first revision without gates, out of the Service."""


def scene_of(*editions, strategy="bluegreen", answered=(), ungated="drain", weights=None, **status):
    spec = Spec("web", strategy, restart="2", ungated=ungated, **STRATEGIES.get(strategy, {}))
    asked = {Question(kind, revision, "web", 1).key: Asked("yes") for kind, revision in answered}
    known = Status(phase="progressing", revision="r2", stable="r1", round=1, asked=asked)
    known = msgspec.structs.replace(known, **status)
    way = Way("web", {"app": "web"})
    return Scene(0.0, spec, known, "t2", 3, 3, 1, editions, (way,), weights or {}, template="t1")


def wrong(scene, step):
    return " / ".join(breaches(scene, Decision((step,), scene.status)))


def step(act, subject, count=None, **fields):
    return Step(act, subject, "it is said so", count, **fields)


def retarget(revision, count=None):
    return step(Act.RETARGET, "web", selector={"tidegate.dev/revision": revision}, detail={"revision": revision})


ROUTED = (("routed", "r2"),)
GONE = (("unrouted", "r1"),)
LISTED2 = replace(R2, members=pods("r2", is_listed=True))

BREAKING = {
    "fewer available than have to be": (
        scene_of(R1, replace(LISTED2, members=pods("r2", 1, is_listed=True)), answered=ROUTED),
        step(Act.SCALE, "r1", 1),
        "3 have to be",
    ),
    "a selector with fewer ready than have to be": (
        scene_of(R1, replace(R2, members=pods("r2", 2))),
        retarget("r2"),
        "only 2 of its pods are ready",
    ),
    "an old revision shrunk before the new one is routed everywhere": (
        scene_of(R1, LISTED2),
        step(Act.SCALE, "r1", 2),
        "r2 is not known to be routed everywhere",
    ),
    "pods without a gate scaled away": (
        scene_of(OUT1, LISTED2, answered=(*ROUTED, *GONE)),
        step(Act.SCALE, "r1", 0),
        "have no gate and would end unverified",
    ),
    "pods without a gate rolled away": (
        scene_of(BARE1, strategy="rolling"),
        step(Act.SET_TEMPLATE, "web"),
        "have no gate and would end unverified",
    ),
    "pods of a rollout before, without a gate, rolled away": (
        scene_of(replace(BARE1, fingerprint="t0"), replace(R2, fingerprint="t1", is_base=True), strategy="rolling"),
        step(Act.SET_TEMPLATE, "web"),
        "have no gate and would end unverified",
    ),
    "pods without a gate let go, and nobody has agreed": (
        scene_of(BARE1, LISTED2),
        step(Act.LET_GO, "r1", pods=("r1-0",)),
        "nobody has agreed",
    ),
    "pods without a gate ended as they are, and routed to perhaps": (
        scene_of(OUT1, LISTED2, answered=ROUTED),
        step(Act.DRAIN, "r1", 0, pods=("r1-0", "r1-1", "r1-2")),
        "r1 is not known to be unrouted",
    ),
    "pods without a gate ended as they are, and listed": (
        scene_of(BARE1, LISTED2, answered=(*ROUTED, *GONE)),
        step(Act.DRAIN, "r1", 0, pods=("r1-0", "r1-1", "r1-2")),
        "r1-0, r1-1, r1-2 are listed still",
    ),
    "a pod without a gate that was not looked at ended with others": (
        scene_of(OUT1, LISTED2, answered=(*ROUTED, *GONE)),
        step(Act.DRAIN, "r1", 0, pods=("r1-0", "r1-1")),
        "r1-2",
    ),
    "all connections sent to pods without a gate": (
        scene_of(R1, BARE2),
        retarget("r2"),
        "no traffic is sent to pods that nobody could drain",
    ),
    "a share sent to pods without a gate": (
        scene_of(R1, BARE2, strategy="canary", weights={"r1": 100}),
        step(Act.WEIGH, "web", weights={"r1": 90, "r2": 10}),
        "no traffic is sent to pods that nobody could drain",
    ),
    "a share of pods that will have no gate": (
        scene_of(R1, replace(R2, is_gated=False), strategy="canary"),
        step(Act.SCALE, "r2", 4),
        "no traffic is sent to pods that nobody could drain",
    ),
    "a Service widened to pods without a gate": (
        scene_of(R1, BARE2),
        step(Act.RETARGET, "web", selector={"tidegate.dev/revision": None}, detail={"revision": None}),
        "no traffic is sent to pods that nobody could drain",
    ),
    "weights that are not a hundred": (
        scene_of(R1, R2, strategy="canary", weights={"r1": 100}),
        step(Act.WEIGH, "web", weights={"r1": 90, "r2": 5}),
        "100",
    ),
    "a share for nobody": (
        scene_of(R1, replace(R2, members=pods("r2", is_ready=False)), strategy="canary", weights={"r1": 100}),
        step(Act.WEIGH, "web", weights={"r1": 90, "r2": 10}),
        "no ready pod",
    ),
    "the user's own Deployment deleted": (
        scene_of(replace(R1, members=(), desired=0), R2),
        step(Act.RETIRE, "r1"),
        "the user's own",
    ),
    "a revision deleted with its pods": (scene_of(R1, R2), step(Act.RETIRE, "r2"), "still has pods"),
}


@pytest.mark.parametrize("name", sorted(BREAKING))
def test_a_plan_that_breaks_a_rule_is_refused(name):
    scene, made, why = BREAKING[name]
    assert why in wrong(scene, made)


AGREED = [one for one in BREAKING if "gate" in one and "as they are" not in one]


@pytest.mark.parametrize("name", sorted(AGREED))
def test_who_lets_pods_go_unverified_may_have_them_without_a_gate(name):
    scene, made, _ = BREAKING[name]
    assert wrong(replace(scene, spec=msgspec.structs.replace(scene.spec, ungated="proceed")), made) == ""


def test_who_had_the_traffic_may_have_it_again_without_a_gate():
    """The way back is not barred by what served before."""
    assert wrong(scene_of(BARE1, R2), retarget("r1")) == ""
    past = (Past("r2", outcome="done"),)
    assert wrong(scene_of(R1, BARE2, history=past), retarget("r2")) == ""
    assert wrong(scene_of(R1, BARE2, stable="r2"), retarget("r2")) == ""


def test_out_of_traffic_pods_without_a_gate_end_as_they_are():
    scene = scene_of(OUT1, LISTED2, answered=(*ROUTED, *GONE))
    assert wrong(scene, step(Act.DRAIN, "r1", 0, pods=("r1-0", "r1-1", "r1-2"))) == ""
