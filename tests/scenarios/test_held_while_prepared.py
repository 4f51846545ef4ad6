"""A pod that is held while its Service is given a label of its own: what was noted before the cut is not enough."""

from __future__ import annotations

import asyncio
import json

from scene import Mortal, play
from stage import NS, deployment, first

from tidegate.client import About, PrepareOptions, VerbOptions, cut_pod, drain_pod, examine, prepare_service
from tidegate.client.options import Identity
from tidegate.client.restore import restore_pod
from tidegate.kube.api import ENDPOINTSLICES, PODS, SERVICES, Selection
from tidegate.kube.client import KubeClient
from tidegate.model.names import HELD, RESERVATIONS, Ending

UNGATED = deployment(gate=False)
OPTIONS = VerbOptions(timeout_seconds=60, seed=0)


async def prepare_in_place(stage):
    done = await prepare_service(stage.client, About(NS, "echo", ("echo",)), PrepareOptions(in_place=True, seed=0))
    assert done.result == "prepared", done


def test_a_pod_that_is_given_back_after_its_service_was_prepared_has_the_new_label_and_gets_traffic():
    async def story(stage):
        name = await first(stage)
        assert (await cut_pod(stage.client, NS, name, OPTIONS)).result is Ending.VERIFIED
        await stage.ready(4)
        await prepare_in_place(stage)
        assert (await restore_pod(stage.client, (NS, name), OPTIONS)).result is Ending.VERIFIED
        found = await stage.api.get(PODS, name, NS)
        assert found["metadata"]["labels"]["traffic.tidegate.dev/echo"] == "on"
        slices = (await stage.api.list(ENDPOINTSLICES, Selection(NS))).items
        listed = [
            one["targetRef"]["name"] for obj in slices for one in obj["endpoints"] or () if one["conditions"]["ready"]
        ]
        assert name in listed, "its owner counts it: it must serve"

    play(story, UNGATED)


def test_what_a_killed_cut_reserved_is_taken_back_although_its_service_asks_for_more_by_now():
    async def story(stage):
        name = await first(stage)
        mortal = Mortal(stage.lab.lab.exchange, 10**6)
        killed = VerbOptions(timeout_seconds=60, seed=0, identity=Identity("ann@desk", "killed"))
        cutting = asyncio.create_task(cut_pod(KubeClient(mortal, "lab"), NS, name, killed))
        while HELD not in (await stage.api.get(PODS, name, NS))["metadata"]["labels"]:
            await asyncio.sleep(0.001)
        mortal.died.set()
        cutting.cancel()
        await stage.ready(4)
        await prepare_in_place(stage)
        after = VerbOptions(seed=1, identity=Identity("ann@desk", "next", lambda holder: False))
        assert (await drain_pod(stage.client, NS, name, after)).result is Ending.VERIFIED
        annotations = (await stage.api.get(SERVICES, "echo", NS))["metadata"].get("annotations") or {}
        assert json.loads(annotations.get(RESERVATIONS, "{}")) == {}

    play(story, UNGATED)


def test_a_cut_killed_after_its_reservation_is_named_by_doctor_and_a_second_cut_and_a_restore_take_it_back():
    """It counts against the floor although its pod serves: never unsafe, and nobody would guess why others are
    refused."""

    async def story(stage):
        name = await first(stage)
        mortal = Mortal(stage.lab.lab.exchange, 1)
        killed = VerbOptions(timeout_seconds=60, seed=0, identity=Identity("ann@desk", "killed"))
        cutting = asyncio.create_task(cut_pod(KubeClient(mortal, "lab"), NS, name, killed))
        await mortal.died.wait()
        cutting.cancel()
        assert HELD not in (await stage.api.get(PODS, name, NS))["metadata"]["labels"]
        found = [one for one in (await examine(stage.client, NS)).findings if f"a drain of pod/{name}" in one.sentence]
        assert [one.subject for one in found] == [f"svc/{NS}/echo"]
        after = VerbOptions(timeout_seconds=60, seed=1, identity=Identity("ann@desk", "next", lambda holder: False))
        assert (await cut_pod(stage.client, NS, name, after)).result is Ending.VERIFIED
        assert (await restore_pod(stage.client, (NS, name), after)).result is Ending.VERIFIED
        annotations = (await stage.api.get(SERVICES, "echo", NS))["metadata"].get("annotations") or {}
        assert RESERVATIONS not in annotations
        assert not [one for one in (await examine(stage.client, NS)).findings if "a drain of pod/" in one.sentence]

    play(story, UNGATED)
