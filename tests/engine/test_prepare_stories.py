"""``prepare``: a Service gets a label of its own under load, killed after every write, undone from anywhere."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
from stage import NS, deployment, first, play
from under_load import Load

from tidegate.client import VerbOptions, cut_pod
from tidegate.client.options import Identity
from tidegate.client.prepare.plan import PrepareOptions, plan_prepare
from tidegate.client.prepare.run import carry_out, prepare_service
from tidegate.client.prepare.scene import About
from tidegate.kube.api import (
    DEPLOYMENTS,
    ENDPOINTSLICES,
    PODS,
    REPLICASETS,
    SERVICES,
    Deletion,
    Patch,
    Selection,
)
from tidegate.kube.client import KubeClient
from tidegate.model.names import PREPARED, Ending
from tidegate.traffic.preparation import Act

KEY = "traffic.tidegate.dev/echo"
ABOUT = About(NS, "echo", ("echo",))
IN_PLACE = PrepareOptions(in_place=True, seed=0)
ROLLOUT = PrepareOptions(seed=0)
ABORT = PrepareOptions(is_abort=True, seed=1)
UNGATED = deployment(gate=False)
UNGATED["spec"]["template"]["metadata"].pop("annotations", None)  # an empty map is none, to a real API server
PASSING = ("resourceVersion", "managedFields", "generation")


class Film:
    """Watches the Service and its pods: when the selector asked for the label, and whether any pod lacked it then."""

    def __init__(self, stage):
        self.stage, self.wrong, self.asked = stage, [], []

    async def run(self):
        async for event in self.stage.api.watch(SERVICES, Selection(NS, fields="metadata.name=echo")):
            is_asked = KEY in event.object["spec"]["selector"]
            if is_asked and (not self.asked or not self.asked[-1]):
                pods = await self.stage.pods()
                self.wrong += [one["metadata"]["name"] for one in pods if one["metadata"]["labels"].get(KEY) != "on"]
            self.asked.append(is_asked)


@contextlib.asynccontextmanager
async def watched(stage):
    film = Film(stage)
    filming = asyncio.create_task(film.run())
    async with Load(stage).running():
        yield film
    filming.cancel()
    assert film.wrong == []


async def selector(stage):
    return (await stage.api.get(SERVICES, "echo", NS))["spec"]["selector"]


async def ready_endpoints(stage):
    listed = (await stage.api.list(ENDPOINTSLICES, Selection(NS, "kubernetes.io/service-name=echo"))).items
    return {e["targetRef"]["name"] for one in listed for e in one.get("endpoints") or () if e["conditions"]["ready"]}


async def everything(stage):
    """All that stands, without what every write changes."""
    found = {}
    for resource in (DEPLOYMENTS, REPLICASETS, PODS, SERVICES):
        for obj in (await stage.api.list(resource, Selection(NS))).items:
            meta = {key: value for key, value in obj["metadata"].items() if key not in PASSING}
            found[f"{obj['kind']} {meta['name']}"] = {"metadata": meta, "spec": obj["spec"]}
    return json.loads(json.dumps(found))


def kept(found):
    """What a rollout, and its way back, must leave as it was: names of pods and the history are its own."""
    alive = [obj for name, obj in found.items() if name.startswith("Pod ")]
    pods = [obj["metadata"]["labels"] for obj in alive if "deletionTimestamp" not in obj["metadata"]]
    named = {name: obj for name, obj in found.items() if name.startswith("Service ")}
    specs = {name: obj["spec"] for name, obj in found.items() if name.startswith("Deployment ")}
    return named, specs, sorted(json.dumps({**one, "pod-template-hash": ""}, sort_keys=True) for one in pods)


@pytest.mark.parametrize(("options", "manifest"), [(IN_PLACE, UNGATED), (ROLLOUT, None)], ids=["in-place", "rollout"])
def test_under_load_nothing_is_lost_and_the_selector_asks_last(options, manifest):
    async def story(stage):
        before = {one["metadata"]["uid"] for one in await stage.pods()}
        plan, heard = await plan_prepare(stage.client, ABOUT, options), []
        async with watched(stage) as film:
            result = await carry_out(stage.client, plan, options, heard.append)
        # What was planned is what was done, in that order.
        passing = {Act.WAIT, Act.CLAIM} | (set() if options.in_place else {Act.LABEL_PODS})  # pods still in their gates
        planned = [one.act for one in plan.moves if one.act not in passing]
        assert [one.act for one in heard if one.act not in passing] == planned
        assert result.result == "prepared", result
        assert film.asked[0] is False and film.asked[-1] is True
        assert (await selector(stage))[KEY] == "on"
        after = {one["metadata"]["uid"] for one in await stage.pods()}
        assert (before == after) is options.in_place
        assert len(await ready_endpoints(stage)) == 3
        # Again: so already, and nothing is written.
        standing = await everything(stage)
        again = await prepare_service(stage.client, ABOUT, options)
        assert (again.result, again.reason) == ("unchanged", "already prepared")
        assert await everything(stage) == standing

    play(story, manifest)


@pytest.mark.parametrize(("options", "manifest"), [(IN_PLACE, UNGATED), (ROLLOUT, None)], ids=["in-place", "rollout"])
def test_under_load_it_goes_back_from_the_middle_and_from_the_end(options, manifest):
    async def story(stage):
        before = await everything(stage)
        async with watched(stage):
            for seconds in (0.4, 1.2, 2.6, 100):
                running = asyncio.create_task(prepare_service(stage.client, ABOUT, options))
                await asyncio.wait((running,), timeout=seconds)
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                result = await prepare_service(stage.client, ABOUT, ABORT)
                assert result.result == "aborted", result
                assert kept(await everything(stage)) == kept(before)
                if options.in_place:
                    assert await everything(stage) == before

    play(story, manifest)


def test_after_it_a_cut_takes_one_label_and_the_replicaset_keeps_the_pod():
    async def story(stage):
        await prepare_service(stage.client, ABOUT, IN_PLACE)
        name = await first(stage)
        cut = await cut_pod(stage.client, NS, name, VerbOptions(timeout_seconds=60, seed=0, replace=False))
        assert cut.result is Ending.VERIFIED, cut
        found = await stage.api.get(PODS, name, NS)
        assert found["metadata"]["labels"][KEY] == "tidegate-cut"
        assert found["metadata"]["labels"]["app"] == "echo"
        assert found["metadata"]["ownerReferences"][0]["kind"] == "ReplicaSet"
        assert len(await stage.pods()) == 3
        # The label is all that keeps it out: going back would put it back into traffic.
        refused = await prepare_service(stage.client, ABOUT, ABORT)
        assert refused.result == "refused" and f"pod/{name}" in refused.reason
        assert (await prepare_service(stage.client, ABOUT, IN_PLACE)).result == "unchanged"

    play(story, UNGATED)


class Mortal:
    """The way to the API of a process that is killed after its ``last`` write: what it sends later goes nowhere."""

    def __init__(self, exchange, last):
        self.exchange, self.last, self.writes = exchange, last, 0
        self.died = asyncio.Event()

    async def __call__(self, request):
        if self.died.is_set():
            await asyncio.get_running_loop().create_future()
        answer = await self.exchange(request)
        is_review = request.path.endswith("selfsubjectaccessreviews")
        if request.method in ("PATCH", "DELETE", "POST") and not is_review:
            self.writes += 1
            if self.writes == self.last:
                self.died.set()
                await asyncio.get_running_loop().create_future()
        return answer


async def killed_after(stage, options, last):
    """A run that dies after its ``last`` write; how many it made."""
    mortal = Mortal(stage.lab.lab.exchange, last)
    running = asyncio.create_task(prepare_service(KubeClient(mortal, "lab"), ABOUT, options))
    dying = asyncio.create_task(mortal.died.wait())
    await asyncio.wait((running, dying), return_when=asyncio.FIRST_COMPLETED)
    dying.cancel()
    return mortal.writes


WRITES = {"in-place": 14, "rollout": 6, "abort": 10}
"""In a run that nothing disturbs, with one older ReplicaSet in place."""


async def aged(stage):
    """One revision more, so that there is something to roll back to."""
    template = {"metadata": {"annotations": {"build": "2"}}}
    await stage.api.patch(DEPLOYMENTS, "echo", Patch({"spec": {"template": template}}), NS)
    await asyncio.sleep(5)
    await stage.ready(3)


@pytest.mark.parametrize(
    ("options", "key"), [(IN_PLACE, "in-place"), (ROLLOUT, "rollout")], ids=["in-place", "rollout"]
)
def test_a_run_that_is_killed_after_any_write_is_finished_or_undone_by_the_next(options, key):
    async def story(stage):
        await aged(stage)
        before = await everything(stage)
        assert (await prepare_service(stage.client, ABOUT, options)).result == "prepared"
        ends = await everything(stage)
        await prepare_service(stage.client, ABOUT, ABORT)
        total = await killed_after(stage, options, 10**6)
        await prepare_service(stage.client, ABOUT, ABORT)
        assert total >= WRITES[key]
        for last in range(1, total + 1):
            await killed_after(stage, options, last)
            await asyncio.sleep(16)
            assert (await prepare_service(stage.client, ABOUT, options)).result in ("prepared", "unchanged"), last
            assert shape(await everything(stage)) == shape(ends), last
            assert (await prepare_service(stage.client, ABOUT, ABORT)).result == "aborted", last
            await killed_after(stage, options, last)
            await asyncio.sleep(16)
            assert (await prepare_service(stage.client, ABOUT, ABORT)).result == "aborted", last
            assert kept(await everything(stage)) == kept(before), last
            if options.in_place:
                assert await everything(stage) == before, last

    play(story, UNGATED, limit=4000, addons=())


def shape(found):
    """What must be the same at the end: not the instant and token of the record, nor what a rollout names."""
    services, specs, pods = kept(found)
    for one in services.values():
        one["metadata"].pop("annotations", None)
    return services, specs, pods


@pytest.mark.parametrize("options", [IN_PLACE, ROLLOUT], ids=["in-place", "rollout"])
def test_an_abort_that_is_killed_after_any_write_is_finished_or_turned_by_the_next(options):
    async def story(stage):
        await aged(stage)
        before = await everything(stage)
        total = last = 1
        while last <= total:
            for following, wanted in ((ABORT, "aborted"), (options, "prepared")):
                assert (await prepare_service(stage.client, ABOUT, options)).result in ("prepared", "unchanged")
                made = await killed_after(stage, ABORT, last)
                total = max(total, made + (made == last))
                await asyncio.sleep(16)
                result = await prepare_service(stage.client, ABOUT, following)
                assert result.result in (wanted, "unchanged"), (last, result)
                if following is ABORT:
                    assert kept(await everything(stage)) == kept(before), last
                    if options.in_place:
                        assert await everything(stage) == before, last
                else:
                    assert (await selector(stage))[KEY] == "on"
            last += 1
        assert last > 5

    play(story, UNGATED, limit=4000, addons=())


def test_of_two_at_once_one_wins_and_the_other_is_told_who_and_when():
    async def story(stage):
        ann = PrepareOptions(in_place=True, seed=0, identity=Identity("ann@desk", "one"))
        bob = PrepareOptions(in_place=True, seed=1, identity=Identity("bob@sofa", "two"))
        results = await asyncio.gather(
            prepare_service(stage.client, ABOUT, ann), prepare_service(stage.client, ABOUT, bob)
        )
        assert sorted(one.result for one in results) == ["prepared", "refused"]
        loser = next(one for one in results if one.result == "refused")
        record = json.loads(
            (await stage.api.get(SERVICES, "echo", NS))["metadata"]["annotations"]["tidegate.dev/prepare"]
        )
        assert record["token"] in loser.reason and record["at"] in loser.reason and record["by"] in loser.reason

    play(story, UNGATED, addons=())


def test_no_write_lands_on_an_object_that_was_changed_since_it_was_looked_at():
    async def story(stage):
        inner, untested = stage.lab.lab.exchange, []

        async def exchange(request):
            if request.method == "PATCH":
                tested = {one["path"] for one in json.loads(request.body) if one["op"] == "test"}
                untested.extend({"/metadata/uid", "/metadata/resourceVersion"} - tested)
            return await inner(request)

        for options in (IN_PLACE, ABORT, ROLLOUT, ABORT):
            await prepare_service(KubeClient(exchange, "lab"), ABOUT, options)
        assert untested == []

    play(story, UNGATED, addons=())


@pytest.mark.parametrize("options", [IN_PLACE, ROLLOUT], ids=["in-place", "rollout"])
def test_an_autoscaler_may_scale_it_meanwhile(options):
    async def story(stage):
        async def scaling():
            for replicas in (5, 2, 6, 4) * 3:
                await asyncio.sleep(0.4)
                await stage.scale(replicas)

        async with watched(stage):
            scaler = asyncio.create_task(scaling())
            result = await prepare_service(stage.client, ABOUT, options)
            await scaler
        assert result.result == "prepared", result
        await stage.ready(4)
        assert len(await ready_endpoints(stage)) == 4
        assert all(one["metadata"]["labels"][KEY] == "on" for one in await stage.pods())

    play(story, deployment())


def pod_of(name, labels):
    made = deployment()["spec"]["template"]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NS, "labels": labels}, **{
        "spec": made["spec"]}}  # fmt: skip


@pytest.mark.parametrize("after", range(1, 15))
def test_a_pod_of_somebody_else_that_comes_at_any_step_never_leaves_the_service(after):
    """It is served, or the run stops and says its name; the selector never stands against it."""

    async def story(stage):
        count = 0
        inner = stage.lab.lab.exchange

        async def exchange(request):
            nonlocal count
            answer = await inner(request)
            if request.method == "PATCH":
                count += 1
                if count == after:
                    await stage.api.create(PODS, pod_of("stray", {"app": "echo"}))
            return answer

        result = await prepare_service(KubeClient(exchange, "lab"), ABOUT, IN_PLACE)
        await asyncio.sleep(10)
        listed = await ready_endpoints(stage)
        if count < after or result.result == "prepared":
            assert KEY in await selector(stage)
            return
        assert result.result in ("stopped", "refused") and "pod/stray" in result.reason
        assert KEY not in await selector(stage)
        found = await stage.api.get(SERVICES, "echo", NS)
        assert (PREPARED in (found["metadata"].get("annotations") or {})) is (result.result == "stopped")
        assert "stray" in listed and len(listed) == 4
        await stage.api.delete(PODS, "stray", NS, Deletion())
        await stage.gone("stray")
        again = await prepare_service(stage.client, ABOUT, IN_PLACE)
        assert again.result == "prepared", again

    play(story, UNGATED, addons=())


def test_a_template_that_loses_the_label_is_found_and_mended_by_the_next_run():
    async def story(stage):
        await prepare_service(stage.client, ABOUT, IN_PLACE)
        template = {"metadata": {"labels": {KEY: None}}}
        await stage.api.patch(DEPLOYMENTS, "echo", Patch({"spec": {"template": template}}), NS)
        await asyncio.sleep(5)
        assert await ready_endpoints(stage) == set()
        assert (await prepare_service(stage.client, ABOUT, IN_PLACE)).result == "prepared"
        assert len(await ready_endpoints(stage)) == 3

    play(story, UNGATED, addons=())


def test_two_deployments_of_one_service_are_prepared_together():
    async def story(stage):
        other = deployment(replicas=2, gate=False)
        other["metadata"]["name"] = "green"
        other["spec"]["selector"]["matchLabels"]["set"] = other["spec"]["template"]["metadata"]["labels"]["set"] = (
            "green"
        )
        await stage.api.create(DEPLOYMENTS, other)
        await stage.ready(5)
        alone = await prepare_service(stage.client, ABOUT, IN_PLACE)
        assert alone.result == "refused" and "name deploy/green too" in alone.reason
        assert "annotations" not in (await stage.api.get(SERVICES, "echo", NS))["metadata"]
        both = About(NS, "echo", ("echo", "green"))
        async with watched(stage):
            assert (await prepare_service(stage.client, both, IN_PLACE)).result == "prepared"
        assert len(await ready_endpoints(stage)) == 5
        # One of them is enough to go back: the record knows the other.
        assert (await prepare_service(stage.client, ABOUT, ABORT)).result == "aborted"
        assert KEY not in json.dumps([one["metadata"]["labels"] for one in await stage.pods()])

    play(story, UNGATED)


def test_a_service_that_is_deleted_halfway_leaves_a_deployment_that_can_be_resumed():
    async def story(stage):
        before = (await stage.api.get(DEPLOYMENTS, "echo", NS))["spec"]
        await killed_after(stage, IN_PLACE, 4)
        assert (await stage.api.get(DEPLOYMENTS, "echo", NS))["spec"]["paused"] is True
        await stage.api.delete(SERVICES, "echo", NS, Deletion())
        await asyncio.sleep(16)
        assert (await prepare_service(stage.client, ABOUT, ABORT)).result == "aborted"
        assert (await stage.api.get(DEPLOYMENTS, "echo", NS))["spec"] == before
        assert KEY not in json.dumps([one["metadata"]["labels"] for one in await stage.pods()])

    play(story, UNGATED, addons=())
