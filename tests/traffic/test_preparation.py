"""The next move of ``prepare``: whatever happens between two looks, the selector never leaves a pod behind."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from tidegate.model.names import PrepareRecord
from tidegate.traffic.outlook import after, outline
from tidegate.traffic.ownership import claim_on
from tidegate.traffic.preparation import (
    PREPARING,
    VERIFYING,
    Act,
    Edition,
    Member,
    Scene,
    Subject,
    Wish,
    next_move,
)

KEY = "traffic.tidegate.dev/web"
APP = {"app": "web"}
ON = {**APP, KEY: "on"}
IN_PLACE, ROLLOUT = Wish(KEY, "on", True), Wish(KEY, "on", False)
WISHES = [IN_PLACE, ROLLOUT]


def plain(**changes):
    editions = (Edition("web-2", APP, 3, True), Edition("web-1", {**APP, "build": "1"}, 0, False))
    members = tuple(Member(f"web-2-{n}", "Deployment/web", APP) for n in "abc")
    return replace(Scene(APP, (Subject("web", APP, editions),), members), **changes)


def walk(scene, wish, moves=100):
    """The scene at the end, and the acts that led there."""
    acts = []
    for _ in range(moves):
        move = next_move(scene, wish)
        if move.act in (Act.DONE, Act.STUCK):
            return scene, acts, move
        acts.append(move.act)
        scene = after(scene, move, wish)
    raise AssertionError(f"it never ends: {acts[-6:]}")


@pytest.mark.parametrize("wish", WISHES, ids=["in-place", "rollout"])
def test_the_selector_is_the_last_thing_to_ask_for_the_label_and_the_first_to_stop(wish):
    prepared, acts, _ = walk(plain(), wish)
    assert prepared.selector == ON and all(one.labels[KEY] == "on" for one in prepared.members)
    labels = (Act.LABEL_PODS, Act.LABEL_TEMPLATE, Act.LABEL_REVISIONS, Act.REHEARSE, Act.RESUME)
    assert all(acts.index(Act.EXTEND) > number for number, act in enumerate(acts) if act in labels)
    back, acts, _ = walk(prepared, replace(wish, is_abort=True))
    assert acts[0] is Act.SHRINK
    assert back.selector == APP and back.record is None
    assert all(KEY not in one.labels for one in back.members)


def test_in_place_the_deployment_is_paused_while_its_templates_differ():
    scene = plain()
    while (move := next_move(scene, IN_PLACE)).act is not Act.DONE:
        scene = after(scene, move, IN_PLACE)
        (subject,) = scene.subjects
        assert subject.is_paused or subject.labels == subject.current.labels


def test_it_is_not_resumed_before_the_controller_has_found_its_replicaset_again():
    scene = plain()
    while (move := next_move(scene, IN_PLACE)).act is not Act.LABEL_TEMPLATE:
        scene = after(scene, move, IN_PLACE)
    scene = after(scene, move, IN_PLACE)
    stale = replace(scene.subjects[0], is_observed=True)
    assert next_move(replace(scene, subjects=(stale,)), IN_PLACE).act is Act.WAIT
    # Going back from here: what it copied of an earlier record is no answer to the question of now.
    back = replace(IN_PLACE, is_abort=True)
    _, acts, _ = walk(scene, back)
    assert acts.index(Act.PAUSE) < acts.index(Act.LABEL_REVISIONS) < acts.index(Act.LABEL_TEMPLATE)
    assert acts[acts.index(Act.RESUME) - 1] is Act.WAIT


def test_no_template_is_touched_before_the_controller_has_seen_the_pause():
    scene = plain()
    while (move := next_move(scene, IN_PLACE)).act is not Act.PAUSE:
        scene = after(scene, move, IN_PLACE)
    move = next_move(after(scene, move, IN_PLACE), IN_PLACE)
    assert (move.act, move.subject) == (Act.WAIT, "web")


def test_an_older_revision_that_equals_the_newest_but_for_the_label_is_marked_by_either_way():
    twin = Edition("web-0", ON, 0, False, is_twin=True)
    scene = plain()
    subject = replace(scene.subjects[0], editions=(*scene.subjects[0].editions, twin))
    end, _, _ = walk(replace(scene, subjects=(subject,)), IN_PLACE)
    assert {one.name: one.mark for one in end.subjects[0].editions} == {"web-2": "", "web-1": "given", "web-0": "kept"}
    back, _, _ = walk(end, replace(IN_PLACE, is_abort=True))
    assert {one.name: KEY in one.labels for one in back.subjects[0].editions} == {
        "web-2": False,
        "web-1": False,
        "web-0": True,
    }


def test_who_is_not_named_and_whom_the_service_selects_is_named():
    others = (Member("bare", "pod", APP), Member("other-x", "StatefulSet/other", APP))
    move = next_move(plain(members=others, record=PrepareRecord("t", PREPARING, KEY, "on")), ROLLOUT)
    assert (move.act, move.names) == (Act.STUCK, ("pod/bare", "StatefulSet/other"))
    move = next_move(
        plain(sources=(("Deployment/empty", APP),), record=PrepareRecord("t", PREPARING, KEY, "on")), ROLLOUT
    )
    assert (move.act, move.names) == (Act.STUCK, ("Deployment/empty",))


@pytest.mark.parametrize("act", ["source", "stranger", "own"])
def test_what_comes_between_the_last_look_and_the_selector_is_put_right_at_once(act):
    scene, _, _ = walk(plain(), IN_PLACE)
    scene = replace(scene, record=PrepareRecord("t", VERIFYING, KEY, "on"))
    late = {"own": Member("web-2-z", "Deployment/web", APP, is_listed=False), "stranger": Member("bare", "pod", APP)}
    if act == "source":
        subject = replace(scene.subjects[0], labels=APP)
        assert next_move(replace(scene, subjects=(subject,)), IN_PLACE).act is Act.SHRINK
        return
    move = next_move(replace(scene, members=(*scene.members, late[act])), IN_PLACE)
    assert move.act is (Act.LABEL_PODS if act == "own" else Act.SHRINK)


def test_a_pod_that_was_cut_by_the_label_is_put_back_into_traffic_by_nobody():
    scene, _, _ = walk(plain(), IN_PLACE)
    held = replace(scene.members[0], labels={**APP, KEY: "tidegate-cut"}, is_kept_out=True)
    scene = replace(scene, members=(held, *scene.members[1:]))
    assert next_move(scene, IN_PLACE).act is Act.DONE
    assert next_move(scene, replace(IN_PLACE, is_abort=True)).act is Act.STUCK
    barren = replace(scene, subjects=(replace(scene.subjects[0], labels=APP),))
    assert next_move(barren, IN_PLACE).act is Act.STUCK


def disturbed(scene, rng):
    """What others do between two looks: scale, roll out, make pods. Nobody touches what carries our name."""
    (subject,) = scene.subjects
    match rng.randrange(6):
        case 0 if subject.current is not None:  # a pod of whatever the ReplicaSet gives
            made = Member(f"web-n{rng.randrange(10**6)}", "Deployment/web", dict(subject.current.labels))
            return replace(scene, members=(*scene.members, made))
        case 1 if len(scene.members) > 1:
            return replace(scene, members=scene.members[1:])
        case 2 if not subject.is_paused:  # a rollout of whatever the Deployment's template gives
            build = {**subject.labels, "build": str(rng.randrange(10**6))}
            return replace(scene, subjects=(replace(subject, labels=build, is_complete=False, is_single=False),))
        case 3:
            unseen = tuple(replace(one, is_observed=False) for one in subject.editions)
            return replace(scene, subjects=(replace(subject, editions=unseen),))
        case 4 if KEY not in scene.selector:
            return replace(scene, members=tuple(replace(one, is_rehearsed=False) for one in scene.members))
    return scene


@pytest.mark.parametrize("wish", WISHES, ids=["in-place", "rollout"])
@pytest.mark.parametrize("seed", range(200))
def test_whatever_happens_between_looks_the_selector_asks_only_for_what_every_pod_has(seed, wish):
    rng = random.Random(seed)
    scene, turns = plain(), [wish, replace(wish, is_abort=True)]
    for _ in range(80):
        if rng.random() < 0.4:
            scene = disturbed(scene, rng)
        doing = turns[0] if rng.random() < 0.9 else turns[1]
        move = next_move(scene, doing)
        assert move.act is not Act.STUCK, move
        if move.act is Act.EXTEND:
            assert all(one.labels.get(KEY) == "on" and one.is_rehearsed for one in scene.members)
            live = [one for one in scene.subjects[0].editions if one.replicas]
            assert all(one.labels.get(KEY) == "on" and one.is_observed for one in live)
            assert scene.subjects[0].labels[KEY] == "on" and not scene.subjects[0].is_paused
        if move.act in (Act.LABEL_PODS, Act.LABEL_TEMPLATE, Act.LABEL_REVISIONS) and doing.is_abort:
            assert KEY not in scene.selector and scene.is_shown
        if move.act is not Act.DONE:
            scene = after(scene, move, doing)
    for doing in turns:
        scene, _, move = walk(scene, doing)
        assert move.act is Act.DONE
        assert (KEY in scene.selector) is not doing.is_abort


def test_the_outline_ends_where_it_is_stuck():
    moves = outline(plain(members=(Member("bare", "pod", APP),)), ROLLOUT)
    assert [one.act for one in moves] == [Act.CLAIM, Act.STUCK]


SELECTOR = ("spec", "selector")


@pytest.mark.parametrize(
    ("metadata", "manager"),
    [
        ({}, None),
        ({"annotations": {"argocd.argoproj.io/tracking-id": "shop:apps/Deployment:demo/web"}}, "Argo CD"),
        ({"labels": {"kustomize.toolkit.fluxcd.io/name": "apps"}}, "Flux"),
        ({"annotations": {"meta.helm.sh/release-name": "shop"}}, "Helm"),
        ({"labels": {"app.kubernetes.io/managed-by": "Helm"}}, "Helm"),
        ({"labels": {"app.kubernetes.io/managed-by": "me"}}, None),
        ({"managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {"f:selector": {}}}}]}, None),
        ({"managedFields": [{"manager": "argocd-controller", "fieldsV1": {"f:spec": {"f:selector": {}}}}]}, "Argo CD"),
        ({"managedFields": [{"manager": "helm-controller", "fieldsV1": {"f:spec": {"f:ports": {}}}}]}, None),
        (
            {"managedFields": [{"manager": "argocd-controller", "subresource": "status", "fieldsV1": {"f:spec": {}}}]},
            None,
        ),
    ],
)
def test_who_else_keeps_a_field_is_told_by_marks_and_by_field_managers(metadata, manager):
    claim = claim_on({"metadata": metadata}, (SELECTOR,))
    assert (claim.manager if claim else None) == manager
