"""What ``tidegate install`` applies to a lab, in virtual time: the objects of a real cluster, roles and all."""

from __future__ import annotations

import asyncio

from operator_stage import asked, condition, until
from stage import NS, deployment
from stage import play as play_on_stage

from tidegate.agent.manifests import Installation
from tidegate.cli.parts import objects_of
from tidegate.client.install import carry_out_install, offered, plan_install, stamped, until_ready
from tidegate.client.uninstall import carry_out_uninstall, plan_uninstall
from tidegate.kube.api import (
    CUSTOMRESOURCEDEFINITIONS,
    DEPLOYMENTS,
    LEASES,
    NAMESPACES,
    PODS,
    Deletion,
    Patch,
    Selection,
)
from tidegate.model.names import OPERATOR, SYSTEM_NAMESPACE
from tidegate.rehearse.addons import OFFER, TIDEGATE

NOBODY_ELSES = Installation("")


async def installed(stage):
    wanted = stamped(objects_of(NOBODY_ELSES, offer=await offered(stage.client)), "1.2.3", "")
    plan = await plan_install(stage.client, wanted, "1.2.3")
    assert plan.refused == ()
    await carry_out_install(stage.client, plan, False, lambda one: None)
    assert await until_ready(stage.client, wanted, 60, lambda missing: None) == ()
    return plan


async def leader(stage):
    return (await stage.client.get(LEASES, OPERATOR, SYSTEM_NAMESPACE))["spec"]["holderIdentity"]


async def taken_away(stage):
    plan = await plan_uninstall(stage.client, objects_of(NOBODY_ELSES, offer=await offered(stage.client)), True)
    assert await carry_out_uninstall(stage.client, plan, None, 120, lambda line: None) == ()
    names = [one["metadata"]["name"] for one in (await stage.client.list(NAMESPACES)).items]
    assert SYSTEM_NAMESPACE not in names
    assert not (await stage.client.list(CUSTOMRESOURCEDEFINITIONS)).items
    assert not (await stage.client.list(PODS, Selection(SYSTEM_NAMESPACE))).items


def play(story, manifest, **options):
    return play_on_stage(story, manifest, limit=1800, **options)


def test_the_leaders_pod_dies_in_the_middle_of_a_release_and_the_other_ends_it():
    async def story(stage):
        plan = await installed(stage)
        assert {one.change for one in plan.items if one.manifest["kind"] == "Pod"} == {"unchanged"}  # they run already
        await asked(stage, images={"echo": "tidegate/echo:v2"})
        await until(stage, "progressing")
        first = await leader(stage)
        began = stage.now
        assert stage.lab.kill(f"{first}/operator")
        await stage.client.delete(PODS, first, SYSTEM_NAMESPACE, Deletion(0))
        done = await until(stage, "done")
        assert condition(done, "Complete")["status"] == "True"
        assert await leader(stage) != first and stage.now - began < 40
        await taken_away(stage)

    play(story, deployment(), addons=(TIDEGATE, OFFER))


def gates(pods):
    hooks = [(one["spec"]["containers"][0].get("lifecycle") or {}).get("preStop") for one in pods]
    return [hook["httpGet"]["path"] for hook in hooks if hook]


def test_a_bare_lab_gets_all_of_it_and_a_namespace_that_asks_has_gates():
    async def story(stage):
        await installed(stage)
        await stage.api.patch(NAMESPACES, NS, Patch({"metadata": {"labels": {"tidegate.dev/gate": "enabled"}}}))
        await stage.api.patch(DEPLOYMENTS, "echo", Patch({"spec": {"replicas": 4}}), NS)
        await stage.ready(4)
        assert gates(await stage.pods()) == ["/gate/echo"]  # the new one's, by the webhook
        await asked(stage, images={"echo": "tidegate/echo:v2"})
        await until(stage, "done")
        assert gates(await stage.pods()) == ["/gate/echo"] * 4
        await taken_away(stage)

    play(story, deployment(gate=False), addons=(OFFER,))


def test_an_operator_whose_cluster_has_none_of_its_kinds_says_so():
    async def story(stage):
        wanted = objects_of(NOBODY_ELSES, ("operator",), await offered(stage.client))
        await carry_out_install(
            stage.client, await plan_install(stage.client, wanted, "1.2.3"), False, lambda one: None
        )
        assert await until_ready(stage.client, wanted, 60, lambda missing: None) == ()
        await asyncio.sleep(6)
        pods = (
            await stage.client.list(PODS, Selection(SYSTEM_NAMESPACE, "app.kubernetes.io/component=operator"))
        ).items
        for pod in pods:
            log = stage.lab.lab.ground.book.find(SYSTEM_NAMESPACE, pod["metadata"]["name"], "operator")
            lines = b"".join(log.lines_after((0, 0))[0])
            assert b"has no kind Release: `tidegate install` brings it" in lines, lines
        assert len(pods) == 2
        assert (await stage.client.get(DEPLOYMENTS, OPERATOR, SYSTEM_NAMESPACE))["status"]["readyReplicas"] == 2

    play(story, deployment(), addons=(TIDEGATE, OFFER))
