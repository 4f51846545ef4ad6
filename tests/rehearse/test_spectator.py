"""What a watch shows of a pod, and when it was first seen."""

from __future__ import annotations

import asyncio
from typing import Any

from tidegate import vtime
from tidegate.kube.api import PODS, Deletion, Patch
from tidegate.lab.config import LabConfig
from tidegate.lab.virtual import VirtualLab
from tidegate.rehearse import manifests
from tidegate.rehearse.settings import Row, Settings
from tidegate.rehearse.spectator import PodSeen, Spectator, advance

POD: dict[str, Any] = {
    "metadata": {"name": "a", "uid": "u", "namespace": "n"},
    "spec": {"containers": [{"image": "tidegate/echo:v1"}], "nodeName": "node-1"},
    "status": {"podIP": "127.1.1.1", "conditions": [{"type": "Ready", "status": "True"}]},
}


def test_an_instant_once_seen_stays() -> None:
    first = advance(PodSeen("a", "u", "v1", 1.0), POD, 2.0)
    again = advance(first, POD, 3.0)
    assert (again.ready_at, again.node, again.ip) == (2.0, "node-1", "127.1.1.1")
    unready = {**POD, "status": {}}
    assert advance(again, unready, 4.0).ip == "127.1.1.1"


def test_a_pods_life_is_seen_in_order() -> None:
    row = Row("sleep-1", "sleep", 1)

    async def story() -> PodSeen:
        async with VirtualLab(LabConfig()) as lab, vtime.Nursery() as nursery:
            spectator = Spectator(lab.api, "default")
            nursery.start(spectator.run())
            template = manifests.deployment(row, Settings())["spec"]["template"]
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "default"}}
            await lab.api.create(PODS, {**pod, "spec": template["spec"]}, "default")
            await asyncio.sleep(4.0)
            note = {"metadata": {"annotations": {"tidegate.dev/drain-result": '{"result":"verified"}'}}}
            await lab.api.patch(PODS, "a", Patch(note), "default")
            await lab.api.delete(PODS, "a", "default", Deletion())
            await asyncio.sleep(4.0)
            nursery.cancel()
            return spectator.pods("v1")[0]

    seen = vtime.run(story())
    instants = (seen.created_at, seen.ready_at, seen.deleted_at, seen.gone_at)
    assert None not in instants
    assert list(instants) == sorted(instants)  # type: ignore[type-var]
    assert seen.result is not None
    assert seen.result.result.value == "verified"
