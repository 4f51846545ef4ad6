"""Whom a drain suspects: not our own headless Service of cut pods, whenever it was first seen."""

from __future__ import annotations

import asyncio

import pytest
from fake_api import FakeApi

from tidegate import vtime
from tidegate.agent.suspicion import ABSENT_SECONDS, TROUBLED_SECONDS, Suspicion
from tidegate.drain.state import Mode
from tidegate.engine.flights import Flights
from tidegate.kube.api import SERVICES, Listing
from tidegate.kube.errors import ApiError
from tidegate.kube.reflector import Reflector
from tidegate.model import pod
from tidegate.model.endpoint import Endpoint
from tidegate.observers.coordinator import ask_of
from tidegate.observers.discovery import SOURCES

POD = {
    "metadata": {"name": "web", "namespace": "demo", "uid": "u", "labels": {"tidegate.dev/held": "cut"}},
    "spec": {"containers": [{"name": "c"}], "nodeName": "node-1"},
    "status": {"podIP": "127.17.1.2"},
}


def draining(**spec):
    body = {"clusterIP": "None", "selector": {"tidegate.dev/held": "cut"}, "publishNotReadyAddresses": True, **spec}
    return {"metadata": {"name": "tidegate-draining", "namespace": "demo", "resourceVersion": "1"}, "spec": body}


def suspected_of(service):
    """By a drain that saw the pod in the slices of ``service``."""

    async def story():
        api = FakeApi()
        api.put(SERVICES, service)
        services = Reflector(api, SERVICES)
        watching = asyncio.ensure_future(services.run())
        await services.synced()
        suspicion = Suspicion(api, services, lambda: None)
        await suspicion.list_now()
        flight = Flights().touch(ask_of(("u", "demo", "web"), (Endpoint("127.17.1.2"),), Mode.LABEL), 0.0)
        flight.pod, flight.seen = pod.decode(POD), ("demo/tidegate-draining",)
        watching.cancel()
        return suspicion.sentences(flight, ())

    return vtime.run(story(), limit_seconds=10)


def test_the_service_that_keeps_cut_pods_scrapeable_is_nobodys_route():
    assert suspected_of(draining()) == ()


@pytest.mark.parametrize("spec", [{"selector": {"app": "web"}}, {"ports": [{"name": "http", "port": 80}]}])
def test_another_of_its_name_is_suspected_like_any(spec):
    assert any("tidegate-draining" in one for one in suspected_of(draining(**spec)))


def test_the_last_look_leaves_out_kinds_that_were_absent_a_moment_ago_and_no_others():
    async def story():
        api = FakeApi()
        asked, there = [], {"ingresses"}

        async def list_(resource, select=None, resource_version=""):
            asked.append(resource.plural)
            if resource.plural in there:
                return Listing([], "1")
            raise ApiError(404, "NotFound", "no such kind")

        api.list = list_
        suspicion = Suspicion(api, Reflector(api, SERVICES), lambda: None)

        async def looked(look):
            asked.clear()
            await look()
            return list(asked)

        await asyncio.sleep(1)
        assert len(await looked(suspicion.look_again)) == len(SOURCES), "nothing is known yet"
        assert await looked(suspicion.look_again) == ["ingresses"]
        assert len(await looked(suspicion.list_now)) == len(SOURCES)
        there.clear()
        assert await looked(suspicion.look_again) == ["ingresses"]
        await asyncio.sleep(ABSENT_SECONDS)
        assert len(await looked(suspicion.look_again)) == len(SOURCES)

    vtime.run(story(), limit_seconds=100)


def test_the_last_look_waits_for_a_server_in_trouble_but_not_for_one_that_stays_so():
    async def story():
        api, code = FakeApi(), [200]

        async def list_(resource, select=None, resource_version=""):
            if code[0] != 200 and resource.plural == "ingresses":
                raise ApiError(code[0], "", "weather")
            return Listing([], "1")

        api.list = list_
        suspicion = Suspicion(api, Reflector(api, SERVICES), lambda: None)
        assert await suspicion.look_again()
        code[0] = 403
        assert await suspicion.look_again(), "a permission does not come by waiting"
        for code[0] in (429, 500, 503):
            assert not await suspicion.look_again()
        await asyncio.sleep(TROUBLED_SECONDS)
        assert await suspicion.look_again(), "then it is in doubt, and said so"
        flight = Flights().touch(ask_of(("u", "demo", "web"), (Endpoint("127.17.1.2"),), Mode.LABEL), 0.0)
        flight.pod = pod.decode(POD)
        assert any("ingresses" in one and "weather" in one for one in suspicion.sentences(flight, ()))
        code[0] = 200
        assert await suspicion.look_again()
        code[0] = 503
        assert not await suspicion.look_again(), "another trouble is waited for anew"

    vtime.run(story(), limit_seconds=60)
