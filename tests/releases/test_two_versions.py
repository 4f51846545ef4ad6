"""Story 3, two versions behind one Service, as a release: 4.1 and 4.2 have a Deployment each, both serve by the labels
that they share, then only the new one does; and when there is trouble everybody is back at once."""

from __future__ import annotations

import asyncio
from copy import deepcopy

import msgspec
import pytest
from scene import play
from stage import NS, deployment
from troupe import engine, requests

from tidegate.kube.api import DEPLOYMENTS, SERVICES
from tidegate.release.spec import BlueGreen, Spec

SHARED = {"app": "biz1", "zone": "prod"}
SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "biz1", "namespace": NS},
    "spec": {"selector": SHARED, "ports": [{"name": "http", "port": 8080, "targetPort": 8080}]},
}


def release(version):
    made = deployment(replicas=2)
    labels = {**SHARED, "version": version}
    made["metadata"]["name"] = f"biz1-{version.replace('.', '')}"
    made["spec"]["selector"] = {"matchLabels": labels}
    made["spec"]["template"]["metadata"]["labels"] = labels
    made["spec"]["template"]["spec"]["containers"][0]["image"] = f"tidegate/echo:{version}"
    return made


def spec_of(version="4.2"):
    flip = BlueGreen("biz1", by="version", name="biz1-42", together=True, promote="manual")
    return Spec("biz1-41", "bluegreen", template=release(version)["spec"]["template"], bluegreen=flip)


async def ask(book, **fields):
    entry = await book.read()
    return await book.ask(entry, msgspec.structs.replace(entry.spec, **fields))


async def selector(stage):
    return (await stage.api.get(SERVICES, "biz1", NS))["spec"]["selector"]


async def heard(seen, seconds=2.0):
    seen.versions.clear()
    await asyncio.sleep(seconds)
    return set(seen.versions)


@pytest.mark.parametrize("is_there", [False, True], ids=["made by the release", "made by its user"])
def test_two_versions_share_a_service_until_one_has_it_and_everybody_is_back_at_once(is_there):
    async def story(stage):
        await stage.api.create(SERVICES, deepcopy(SERVICE))
        await stage.api.create(DEPLOYMENTS, release("4.1"))
        if is_there:
            await stage.api.create(DEPLOYMENTS, release("4.2"))
        await stage.ready(7 if is_there else 5)
        before = {pod["metadata"]["uid"] for pod in await stage.pods()}
        async with requests(stage, "biz1") as seen, engine(stage, spec_of()) as (made, book):
            assert (await made.run(120)).phase == "paused"
            assert await selector(stage) == SHARED
            assert await heard(seen) == {"4.1", "4.2"}  # both serve
            await ask(book, promoted=1)
            assert (await made.run(120)).phase == "done"
            assert await selector(stage) == {**SHARED, "version": "4.2"}
            assert await heard(seen) == {"4.2"}  # the old ones wait
            await ask(book, wish="" if is_there else "abort", rollback_to="r1" if is_there else "")
            began = stage.now
            status = await made.run(120)
            assert status.phase == ("done" if is_there else "aborted")
            assert await selector(stage) == {**SHARED, "version": "4.1"}
            assert await heard(seen) == {"4.1"}  # everybody is back
            assert stage.now - began - 2.0 < (3.0 if is_there else 6.0)
        assert seen.lost == []
        after = {pod["metadata"]["uid"] for pod in await stage.pods()}
        assert before <= after  # not one of the user's pods was restarted

    play(story, limit=600)


def test_the_new_template_has_to_have_the_label_that_tells_them_apart():
    async def story(stage):
        await stage.api.create(SERVICES, deepcopy(SERVICE))
        await stage.api.create(DEPLOYMENTS, release("4.1"))
        await stage.ready(5)
        spec = spec_of()
        template = deepcopy(spec.template)
        del template["metadata"]["labels"]["version"]
        async with engine(stage, msgspec.structs.replace(spec, template=template)) as (made, _book):
            status = await made.run(5)
        assert "version" in status.reason and "$.spec.bluegreen.by" in status.reason, status.reason
        assert await selector(stage) == SHARED

    play(story, limit=600)


def test_another_deployment_of_that_name_is_not_taken_for_the_new_revision():
    async def story(stage):
        await stage.api.create(SERVICES, deepcopy(SERVICE))
        for version in ("4.1", "4.2"):
            await stage.api.create(DEPLOYMENTS, release(version))
        await stage.ready(7)
        async with engine(stage, spec_of("4.3")) as (made, _book):
            status = await made.run(5)
        assert "deployment/biz1-42 is there, with another template" in status.reason
        assert await selector(stage) == SHARED

    play(story, limit=600)
