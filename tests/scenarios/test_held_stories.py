"""Stories 1 and 4 with requests under way: a pod is cut, isolated, restored, destroyed, and no request is lost."""

from __future__ import annotations

import asyncio
import copy
from dataclasses import replace

import pytest
from scene import ask, asked_of, play
from stage import NS, SERVICE, deployment, first, other_node
from under_load import Floor, Load

from tidegate import vtime
from tidegate.client import VerbOptions, cut_pod, drain_pod, plan_pod
from tidegate.client.isolate import isolate_pod
from tidegate.client.options import Identity
from tidegate.client.restore import restore_pod
from tidegate.kube.api import ENDPOINTSLICES, PODS, SERVICES, Patch, Selection
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError
from tidegate.model.names import DRAINING_SERVICE, Ending, decode_drain

OPTIONS = VerbOptions(timeout_seconds=60, seed=0, identity=Identity("ann@desk", "one"))
UNGATED = deployment(gate=False)


def apart():
    """Story 1: ``backend: default`` is the Service's label, ``app: echo`` the Deployment's."""
    made = copy.deepcopy(UNGATED)
    made["spec"]["template"]["metadata"]["labels"]["backend"] = "default"
    return made


async def names(stage):
    return {one["metadata"]["name"] for one in await stage.pods()}


async def address(stage, name):
    return (await stage.api.get(PODS, name, NS))["status"]["podIP"]


def opened_to(stage, ip, since):
    """Connections that were given to the pod at this address after ``since``, from the kernels' journal."""
    ends = [one for one in stage.lab.journal() if one["event"].startswith("connection-")]
    return [one for one in ends if one["endpoint"].startswith(f"{ip}:") and one["opened"] > since]


def now():
    return vtime.now().timestamp()


async def answer_of(reader):
    return await asyncio.wait_for(reader.read(), 30)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_sick_pod_is_cut_and_given_back_and_its_replacement_is_drained(seed):
    """Story 4: Service and Deployment share ``app``."""

    async def story(stage):
        before, name = await names(stage), await first(stage)
        ip, floor = await address(stage, name), Floor(stage)
        async with Load(stage).running():
            working, _ = await asked_of(stage, name, "/sleep?ms=5000")
            assert (await cut_pod(stage.client, NS, name, OPTIONS)).result is Ending.VERIFIED
            cut_at = now()
            await stage.ready(4)
            (replacement,) = await names(stage) - before
            hundred = await asyncio.gather(*(ask(stage, source=f"node-{1 + n % 3}") for n in range(100)))
            answers = await asyncio.gather(*(answer_of(reader) for reader, _ in hundred))
            assert all(one.startswith(b"HTTP/1.1 200") for one in answers)
            assert (await answer_of(working)).startswith(b"HTTP/1.1 200"), "what it was doing goes on"
            assert opened_to(stage, ip, cut_at) == []

            watching = asyncio.create_task(floor.watch())
            result = await restore_pod(stage.client, (NS, name), OPTIONS)
            watching.cancel()
            restored_at = now()
        assert result.result is Ending.VERIFIED and result.reason == f"pod/{replacement} went in its place"
        assert floor.least == 3, "capacity never dips"
        assert await names(stage) == before and stage.result(replacement)["result"] == "verified"
        assert opened_to(stage, ip, restored_at), "it serves again"

    play(story, UNGATED, seed=seed)


def test_a_sick_pod_is_cut_and_destroyed():
    async def story(stage):
        name = await first(stage)
        async with Load(stage).running():
            assert (await cut_pod(stage.client, NS, name, OPTIONS)).result is Ending.VERIFIED
            await stage.ready(4)
            assert (await drain_pod(stage.client, NS, name, OPTIONS)).result is Ending.VERIFIED
        assert name not in await names(stage) and len(await names(stage)) == 3

    play(story, UNGATED)


@pytest.mark.parametrize("manifest", [apart(), UNGATED], ids=["a label of its own", "one label"])
def test_a_live_pod_is_isolated_with_its_traffic_then_cut_then_drained(manifest):
    """Story 1; and the same where Service and Deployment share their label, by pod-template-hash (decision 3)."""

    async def story(stage):
        if "backend" in manifest["spec"]["template"]["metadata"]["labels"]:
            await stage.api.patch(
                SERVICES, "echo", Patch({"spec": {"selector": {"app": None, "backend": "default"}}}), NS
            )
            await asyncio.sleep(2)
        before, name = await names(stage), await first(stage)
        ip = await address(stage, name)
        async with Load(stage).running():
            isolated = await isolate_pod(stage.client, (NS, name), True, OPTIONS)
            isolated_at = now()
            assert isolated.result is Ending.VERIFIED
            await stage.ready(4)
            assert len(await names(stage) - before) == 1
            working, _ = await asked_of(stage, name, "/sleep?ms=6000")
            assert (await cut_pod(stage.client, NS, name, OPTIONS)).result is Ending.VERIFIED
            cut_at = now()
            assert opened_to(stage, ip, isolated_at), "isolated, it went on serving"
            draining = asyncio.create_task(drain_pod(stage.client, NS, name, OPTIONS))
            assert (await answer_of(working)).startswith(b"HTTP/1.1 200")
            assert (await draining).result is Ending.VERIFIED
            assert opened_to(stage, ip, cut_at) == []
        assert name not in await names(stage) and len(await names(stage)) == 3

    play(story, manifest)


async def scraped(stage, service):
    """As Prometheus does: the addresses in the Service's slices, ready or not, each asked for its metrics."""
    chosen = Selection(NS, f"kubernetes.io/service-name={service}")
    slices = (await stage.api.list(ENDPOINTSLICES, chosen)).items
    found = {}
    for endpoint in (one for each in slices for one in each.get("endpoints") or ()):
        reader, writer = await asyncio.open_connection(endpoint["addresses"][0], 8080)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        found[endpoint["targetRef"]["name"]] = (await answer_of(reader)).split(b"\r\n")[0]
        writer.close()
    return found


def test_a_cut_pod_is_still_scraped_by_who_finds_its_targets_by_endpoints():
    async def story(stage):
        name, other = sorted(await names(stage))[:2]
        assert await scraped(stage, DRAINING_SERVICE) == {}
        await cut_pod(stage.client, NS, name, OPTIONS)
        await stage.ready(4)
        assert name not in await scraped(stage, "echo")
        assert await scraped(stage, DRAINING_SERVICE) == {name: b"HTTP/1.1 200 OK"}
        # It is listed there, and that is no route: both go on to a proof.
        await cut_pod(stage.client, NS, other, OPTIONS)
        await asyncio.sleep(2)
        assert sorted(await scraped(stage, DRAINING_SERVICE)) == [name, other]
        assert (await drain_pod(stage.client, NS, name, OPTIONS)).result is Ending.VERIFIED
        assert await stage.api.get(SERVICES, DRAINING_SERVICE, NS)
        assert (await drain_pod(stage.client, NS, other, OPTIONS)).result is Ending.VERIFIED
        with pytest.raises(ApiError):
            await stage.api.get(SERVICES, DRAINING_SERVICE, NS)

    play(story, UNGATED)


def test_an_imposter_of_the_draining_service_is_a_route():
    async def story(stage):
        imposter = {**SERVICE, "metadata": {"name": DRAINING_SERVICE, "namespace": NS}}
        imposter["spec"] = {**SERVICE["spec"], "selector": {"tidegate.dev/held": "cut"}}
        await stage.api.create(SERVICES, imposter)
        name = await first(stage)
        result = await cut_pod(stage.client, NS, name, VerbOptions(timeout_seconds=10, seed=0))
        assert result.result is Ending.TIMED_OUT and DRAINING_SERVICE in result.reason

    play(story, UNGATED)


def test_who_may_not_write_services_gets_everything_else():
    class Forbidding:
        def __init__(self, exchange):
            self.exchange = exchange

        async def __call__(self, request):
            if request.method == "POST" and request.path.endswith("/services"):
                raise ApiError(403, "Forbidden", "services is forbidden")
            return await self.exchange(request)

    async def story(stage):
        name = await first(stage)
        client = KubeClient(Forbidding(stage.lab.lab.exchange), "lab")
        assert (await cut_pod(client, NS, name, OPTIONS)).result is Ending.VERIFIED
        token = stage.lab.lab.register_token("ann", ("get,list,watch,patch,delete:*",))
        plan = await plan_pod(KubeClient(stage.lab.lab.exchange_as(token), "lab"), (NS, name), "cut", OPTIONS, False)
        note = "scrapers that follow endpoints lose what is cut: these credentials may not create services"
        assert any(one.startswith(note) for one in plan.consequences), plan.consequences

    play(story, UNGATED)


def test_a_gate_that_is_asked_after_a_cut_by_label_keeps_who_cut_the_pod_and_its_labels():
    """Somebody deletes by hand what was cut: the gate says nothing of that in the record's place."""

    async def story(stage):
        name = await first(stage)
        options = replace(OPTIONS, reason="slow answers")
        assert (await cut_pod(stage.client, NS, name, options)).result is Ending.VERIFIED
        stage.fault("proxy-freeze", await other_node(stage, name), 4)
        before = decode_drain((await stage.api.get(PODS, name, NS))["metadata"]["annotations"])
        await stage.delete(name)
        await asyncio.sleep(2)
        leaving = (await stage.api.get(PODS, name, NS))["metadata"]
        record = decode_drain(leaving["annotations"])
        assert leaving["deletionTimestamp"], "its gate holds it"
        assert record == before and (record.mode, record.reason) == ("label", "slow answers")
        assert record.labels and record.owner and record.by and record.seen
        await stage.gone(name)
        assert stage.result(name)["result"] == "verified"

    play(story)
