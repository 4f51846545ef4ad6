"""Places in which a release is easily wrong about what it does: said beforehand, or named while it waits."""

from __future__ import annotations

import msgspec
import pytest
from scene import play
from stage import NS, deployment
from troupe import SPECS, at_rest, at_work, engine

from tidegate.client.release.book import ConfigMapBook
from tidegate.client.release.command import plan_release
from tidegate.kube.api import DEPLOYMENTS, SERVICES
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError
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
