"""A hundred workloads asked for another image at once, by an operator whom the API turns away (peers S64)."""

from __future__ import annotations

import asyncio
import contextlib
from copy import deepcopy

from operator_stage import Hand, asked, play, until
from stage import SERVICE, deployment
from troupe import requests

from tidegate.kube.api import DEPLOYMENTS, SERVICES
from tidegate.kube.errors import ApiError

MANY, WATCHED = 100, (0, 33, 66, 99)
"""Clients ask some of them without end; all are looked at in the end."""


def workload(number):
    labels = {"app": f"app-{number}"}
    made = deployment(replicas=1)
    made["metadata"]["name"] = f"app-{number}"
    made["spec"]["selector"]["matchLabels"] = made["spec"]["template"]["metadata"]["labels"] = labels
    service = deepcopy(SERVICE)
    service["metadata"]["name"] = f"app-{number}"
    service["spec"]["selector"] = labels
    return made, service


def test_a_hundred_releases_at_once_all_end_and_nothing_is_lost_while_the_api_turns_the_operator_away():
    async def story(stage):
        for number in range(MANY):
            made, service = workload(number)
            await stage.api.create(DEPLOYMENTS, made)
            await stage.api.create(SERVICES, service)
        await stage.ready(MANY + 1)
        hand, count, turned_away = Hand(stage), 0, 0

        async def crowd(request):
            nonlocal count, turned_away
            count += 1
            if "/leases/" not in request.path and count % 2:
                turned_away += 1
                raise ApiError(429, "TooManyRequests", "the server has received too many requests")

        await asyncio.sleep(2)
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(requests(stage, f"app-{one}", 0.1)) for one in WATCHED]
            hand.wire.fault = crowd
            for number in range(MANY):
                name = f"app-{number}"
                await asked(stage, name, workload=name, images={"echo": "tidegate/echo:v2"})
            await asyncio.sleep(30)
            hand.wire.fault = None
            for number in range(MANY):
                await until(stage, "done", 300, f"app-{number}")
            await asyncio.sleep(3)
        assert turned_away > 50
        assert [one.lost for one in clients] == [[]] * len(WATCHED)
        assert all(one.versions == {"v1", "v2"} for one in clients)
        ended = [result["result"] for result in map(stage.result, stage.annotations) if result]
        assert ended == ["verified"] * MANY
        assert "a bug" not in "".join(hand.lines)
        await hand.leave()

    play(story, deployment(replicas=1), limit=1500)
