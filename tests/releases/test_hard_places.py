"""Places in which a release is easily wrong about what it does: said beforehand, or named while it waits."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from dataclasses import replace

import msgspec
import pytest
from scene import play
from stage import NS, SERVICE, deployment
from troupe import SPECS, at_rest, at_work, engine, requests, serving

from tidegate import vtime
from tidegate.client.options import Identity
from tidegate.client.release import asking
from tidegate.client.release.asking import answer, subject_of
from tidegate.client.release.book import ConfigMapBook
from tidegate.client.release.command import plan_release
from tidegate.client.release.endings import Endings
from tidegate.client.release.ground import Ground
from tidegate.client.release.look import failure_of
from tidegate.client.release.run import Engine
from tidegate.kube.api import ALL, DEPLOYMENTS, PODDISRUPTIONBUDGETS, PODS, SERVICES, Listing, Patch
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError, KubeError
from tidegate.release.plan import Act
from tidegate.release.record import Asked
from tidegate.release.scene import Edition, Question
from tidegate.release.spec import Invalid, decode_spec


async def second(stage, name="other", count=2):
    """Another Deployment, whose pods the same Service selects."""
    obj = deployment(count)
    obj["metadata"]["name"] = name
    labels = {"app": "echo", "part": name}
    obj["spec"]["selector"] = {"matchLabels": {"part": name}}
    obj["spec"]["template"]["metadata"]["labels"] = labels
    await stage.api.create(DEPLOYMENTS, obj, NS)
    await stage.ready(3 + count)


@pytest.mark.parametrize("strategy", ["bluegreen", "canary", "rainbow"])
def test_a_service_that_selects_pods_of_somebody_else_is_not_narrowed(strategy):
    async def story(stage):
        await second(stage)
        plan = await plan_release(stage.client, ConfigMapBook(stage.client, NS, "echo"), NS, SPECS[strategy])
        assert any("pod/other-" in one for one in plan.refusals), plan.refusals
        before = (await stage.api.get(SERVICES, "echo", NS))["spec"]["selector"]
        async with engine(stage, SPECS[strategy]) as (made, book):
            await made.run(5)
            assert "pod/other-" in (await book.read()).status.reason
        assert (await stage.api.get(SERVICES, "echo", NS))["spec"]["selector"] == before

    play(story)


@pytest.mark.parametrize("strategy", sorted(SPECS))
@pytest.mark.parametrize("name", ["echo-" + "x" * 50, "echo.v1"])
def test_a_workload_whose_name_makes_no_name_of_a_service(strategy, name):
    obj = deployment()
    obj["metadata"]["name"] = name

    async def story(stage):
        async with engine(stage, msgspec.structs.replace(SPECS[strategy], workload=name)) as (made, book):
            await at_rest(made, book)

    play(story, obj, limit=900)


def test_a_name_that_is_no_value_of_a_label_is_refused_with_its_place():
    with pytest.raises(Invalid, match=r"\$\.spec\.workload: 64 characters are too many"):
        decode_spec({"workload": "x" * 64})


def test_what_the_api_calls_invalid_is_said_and_not_tried_for_ever():
    async def story(stage):
        exchange = stage.lab.lab.exchange

        async def strict(request):
            if request.method == "POST" and request.path.endswith("/services"):
                raise ApiError(422, "Invalid", 'Service "x" is invalid: spec: no more of them, says a policy')
            return await exchange(request)

        await ConfigMapBook(stage.client, NS, "echo").begin(SPECS["bluegreen"])
        async with at_work(stage, "echo", client=KubeClient(strict, "lab")) as made:
            with pytest.raises(ApiError, match="says a policy"):
                await made.run(60)

    play(story)


@pytest.mark.parametrize("strategy", sorted(SPECS))
def test_a_webhook_that_changes_the_template_is_named(strategy):
    async def story(stage):
        exchange = stage.lab.lab.exchange

        async def policed(request):
            made = request.body
            if request.method in ("POST", "PATCH") and "/deployments" in request.path and b"echo:v2" in (made or b""):
                request = replace(request, body=made.replace(b"tidegate/echo:v2", b"mirror/echo:v2"))
            return await exchange(request)

        await ConfigMapBook(stage.client, NS, "echo").begin(SPECS[strategy])
        async with at_work(stage, "echo", client=KubeClient(policed, "lab")) as made:
            with pytest.raises(KubeError, match="came back with another template"):
                await made.run(60)

    play(story)


def test_nobody_says_that_a_revision_without_a_ready_pod_is_routed():
    async def story(stage):
        subject = subject_of(NS, Question("routed", "r2", "echo", 1), ())
        said = await answer(stage.client, subject, "n", lambda found: None)
        assert (said.is_settled, said.stragglers) == (False, ("no pod of r2 is ready",))

    play(story)


class Late:
    """An API whose list of Services is as it was some seconds ago: a watch that is behind."""

    def __init__(self, api, seconds):
        self._api, self._seconds, self._seen = api, seconds, []

    async def list(self, resource, *args, **kwargs):
        found = await self._api.list(resource, *args, **kwargs)
        if resource is not SERVICES:
            return found
        now = asyncio.get_running_loop().time()
        self._seen.append((now, found))
        return next((one for at, one in reversed(self._seen) if at <= now - self._seconds), self._seen[0][1])

    def __getattr__(self, name):
        return getattr(self._api, name)


@pytest.mark.parametrize("strategy", ["bluegreen", "rainbow"])
@pytest.mark.parametrize("seconds", [0.7, 3.0])
def test_a_copy_that_is_behind_our_own_write_is_no_other_hand(strategy, seconds):
    async def story(stage):
        book = ConfigMapBook(stage.client, NS, "echo")
        await book.begin(SPECS[strategy])
        async with at_work(stage, "echo") as made:
            made._api = Late(stage.client, seconds)
            await at_rest(made, book)

    play(story, limit=900)


def test_why_pods_cannot_be_drained_is_said_while_it_is_tried_again():
    async def story(stage):
        budget = {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": "all-of-them", "namespace": NS},
            "spec": {"minAvailable": 4, "selector": {"matchLabels": {"app": "echo"}}},
        }
        await stage.api.create(PODDISRUPTIONBUDGETS, budget, NS)
        async with engine(stage, SPECS["rolling"]) as (made, book):
            made._ground = replace(made._ground, drain_seconds=5.0)
            await made.run(40)
            assert "all-of-them" in (await book.read()).status.reason

    play(story, deployment(gate=False))


def test_a_fault_of_ours_in_a_question_is_told_as_its_reason_and_logged_once(monkeypatch):
    async def faulty(*_args):
        raise TypeError("there is no such field")

    async def story(stage):
        logged = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: logged.append(context["message"]))
        monkeypatch.setattr(asking, "answer", faulty)
        async with engine(stage, SPECS["bluegreen"]) as (made, book):
            await made.run(40)
            assert "TypeError: there is no such field" in (await book.read()).status.reason
        assert len(logged) == len(set(logged)) > 0, logged

    play(story)


@pytest.mark.parametrize("strategy", sorted(SPECS))
def test_pods_that_are_to_be_ready_for_a_while_are_waited_for(strategy):
    obj = deployment()
    obj["spec"]["minReadySeconds"] = 20

    async def story(stage):
        await asyncio.sleep(20)
        began = stage.now
        async with engine(stage, SPECS[strategy]) as (made, book):
            await made.run(15)
            assert (await book.read()).status.phase == "progressing"
            assert await serving(stage) in ({"v1"}, {"v1", "v2"})
            if strategy == "bluegreen":
                assert await serving(stage) == {"v1"}
            await at_rest(made, book)
            assert stage.now - began > 20

    play(story, obj, limit=900)


def test_a_deployment_that_ends_all_its_pods_first_is_not_rolled():
    obj = deployment()
    obj["spec"]["strategy"] = {"type": "Recreate"}

    async def story(stage):
        plan = await plan_release(stage.client, ConfigMapBook(stage.client, NS, "echo"), NS, SPECS["rolling"])
        assert any("Recreate" in one for one in plan.refusals), plan.refusals
        async with engine(stage, SPECS["rolling"]) as (made, book):
            await made.run(5)
            assert "Recreate" in (await book.read()).status.reason
        assert await serving(stage) == {"v1"}

    play(story, obj)


def test_a_quota_that_refuses_pods_is_named():
    refused = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota: small"}
    why = failure_of([{"status": {"conditions": [refused]}}])
    assert why == "FailedCreate: exceeded quota: small"
    assert Edition("r2", "web-r2", "f", 3, failure=why).problem == why


def test_a_pod_without_a_gate_that_another_service_has_too_is_not_called_verified():
    async def story(stage):
        inside = copy.deepcopy(SERVICE)
        inside["metadata"]["name"] = "inside"
        await stage.api.create(SERVICES, inside, NS)
        await asyncio.sleep(3)
        async with requests(stage) as seen, requests(stage, "inside", 0.2) as inner:
            async with engine(stage, SPECS["rainbow"]) as (made, book):
                await made.run(60)
                assert "svc/inside has pod/" in (await book.read()).status.reason
            await asyncio.sleep(2)
        assert (seen.lost, inner.lost) == ([], [])
        assert not any(stage.result(name) for name in stage.annotations)

    play(story, deployment(gate=False), limit=900)


def test_what_others_make_of_it_is_said_before_it_begins():
    async def story(stage):
        inside = copy.deepcopy(SERVICE)
        inside["metadata"]["name"] = "inside"
        await stage.api.create(SERVICES, inside, NS)
        mark = Patch(
            {"metadata": {"annotations": {"argocd.argoproj.io/tracking-id": "shop:apps/Deployment:demo/echo"}}}
        )
        await stage.api.patch(DEPLOYMENTS, "echo", mark, NS)
        plan = await plan_release(stage.client, ConfigMapBook(stage.client, NS, "echo"), NS, SPECS["bluegreen"])
        assert plan.notes == (
            "svc/inside selects pods of every revision: the new ones serve there as soon as they are ready",
            "deployment/echo is kept by Argo CD: it has to leave spec.replicas to the release, or it undoes it",
        )
        rolling = await plan_release(stage.client, ConfigMapBook(stage.client, NS, "echo"), NS, SPECS["rolling"])
        assert rolling.notes == ()

    play(story)


def test_an_engine_whose_copies_lag_behind_asks_about_pods_that_they_do_not_have_yet(monkeypatch):
    """An operator reads caches: a pod of the old revision that came up just before the flip is in none of them."""
    asked_about = {}

    async def noted(client, subject, nonce, heard):
        asked_about[subject.question.kind] = {one.name for one in subject.pods}
        return Asked("yes", "main/1", 1.0)

    async def story(stage):
        monkeypatch.setattr(asking, "answer", noted)
        pods = sorted(pod["metadata"]["name"] for pod in await stage.pods())

        class Lagging:
            def __getattr__(self, name):
                return getattr(stage.client, name)

            async def list(self, resource, select=ALL, resource_version=""):
                found = await stage.client.list(resource, select, resource_version)
                is_hidden = resource is PODS and "r2" in flips
                items = [one for one in found.items if not is_hidden or one["metadata"]["name"] != pods[0]]
                return Listing(items, found.resource_version)

        flips = []

        def heard(turn):
            flips.extend(step.subject for step in turn.decision.steps if step.act is Act.CREATE)

        book = ConfigMapBook(stage.client, NS, "echo")
        await book.begin(SPECS["bluegreen"])
        made = Engine(book, Ground(stage.client, Identity("operator", "one"), seed=1), Lagging())
        made.heard = heard
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(60):
                while "unrouted" not in asked_about:
                    await made.turn()
                    await asyncio.sleep(0.5)
        await made.leave()
        assert set(pods) <= asked_about["unrouted"]

    play(story, limit=600)


def test_what_ended_before_a_release_is_not_its_own():
    """An operator watches from release to release: an old ending would halt the next one."""

    async def story(stage):
        pod = (await stage.pods())[0]
        endings = Endings()
        endings.saw(None, pod)
        endings.saw(pod, None)
        began = vtime.now().timestamp()
        assert list(endings.since(began - 5)) == [pod["metadata"]["name"]]
        assert not endings.since(began + 5)

    play(story)
