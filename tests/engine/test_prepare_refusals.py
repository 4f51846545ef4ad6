"""Every refusal of ``prepare``, its way out, and that nothing was changed."""

from __future__ import annotations

import json

import pytest
from stage import NS, deployment, staged

from tidegate import vtime
from tidegate.cli import main as command
from tidegate.cli.prepare import sentence, show
from tidegate.client.prepare.plan import PrepareOptions, plan_prepare
from tidegate.client.prepare.run import carry_out
from tidegate.client.prepare.scene import About
from tidegate.kube.api import (
    DEPLOYMENTS,
    PODDISRUPTIONBUDGETS,
    PODS,
    SERVICES,
    Patch,
    Resource,
    Selection,
)
from tidegate.kube.errors import ApiError
from tidegate.model.names import PREPARED

KEY = "traffic.tidegate.dev/echo"
ABOUT = About(NS, "echo", ("echo",))
ROLLOUT, IN_PLACE = PrepareOptions(seed=0), PrepareOptions(in_place=True, seed=0)
POLICIES = Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
STATEFULSETS = Resource("apps", "v1", "statefulsets", "StatefulSet")
HELM = {"meta.helm.sh/release-name": "shop"}


def of(resource, name, spec, **metadata):
    api = {"apiVersion": resource.api_version, "kind": resource.kind}
    return {**api, "metadata": {"name": name, "namespace": NS, **metadata}, "spec": spec}


def patch(resource, body, name="echo"):
    async def change(stage):
        await stage.api.patch(resource, name, Patch(body), NS)

    return change


def create(resource, *args, **metadata):
    async def change(stage):
        await stage.api.create(resource, of(resource, *args, **metadata))

    return change


async def stateful(stage):
    spec = deployment(replicas=1)["spec"]
    spec["template"]["metadata"]["labels"]["set"] = "db"
    await create(STATEFULSETS, "db", {**spec, "selector": {"matchLabels": {"set": "db"}}, "serviceName": "db"})(stage)


async def bare(stage):
    await create(PODS, "stray", deployment()["spec"]["template"]["spec"], labels={"app": "echo"})(stage)


async def rolling(stage):
    image = {"spec": {"template": {"metadata": {"annotations": {"build": "2"}}}}}
    await stage.api.patch(DEPLOYMENTS, "echo", Patch(image), NS)


CASES = {
    "no such Service": (None, ROLLOUT, About(NS, "ecko", ("echo",))),
    "no such Deployment": (None, ROLLOUT, About(NS, "echo", ("ecko",))),
    "it does not select its pods": (patch(SERVICES, {"spec": {"selector": {"tier": "front"}}}), ROLLOUT, ABOUT),
    "no selector": (patch(SERVICES, {"spec": {"selector": None}}), ROLLOUT, ABOUT),
    "ExternalName": (
        create(SERVICES, "far", {"type": "ExternalName", "externalName": "far.example"}),
        ROLLOUT,
        About(NS, "far", ("echo",)),
    ),
    "a label of its own already": (
        patch(DEPLOYMENTS, {"spec": {"template": {"metadata": {"labels": {"backend": "default"}}}}}),
        ROLLOUT,
        ABOUT,
    ),
    "paused by somebody": (patch(DEPLOYMENTS, {"spec": {"paused": True}}), IN_PLACE, ABOUT),
    "a rollout under way, in place": (rolling, IN_PLACE, ABOUT),
    "Recreate, by rollout": (
        patch(DEPLOYMENTS, {"spec": {"strategy": {"type": "Recreate", "rollingUpdate": None}}}),
        ROLLOUT,
        ABOUT,
    ),
    "a budget selects on the label": (
        create(PODDISRUPTIONBUDGETS, "slow", {"minAvailable": 1, "selector": {"matchLabels": {KEY: "on"}}}),
        ROLLOUT,
        ABOUT,
    ),
    "a policy selects on the label": (
        create(POLICIES, "wall", {"podSelector": {"matchLabels": {KEY: "on"}}}),
        ROLLOUT,
        ABOUT,
    ),
    "another Service selects on it": (
        create(SERVICES, "twin", {"selector": {KEY: "on"}, "ports": [{"port": 80}]}),
        ROLLOUT,
        ABOUT,
    ),
    "it is another value already": (None, PrepareOptions(key="app", value="on", seed=0), ABOUT),
    "a pod of nobody": (bare, ROLLOUT, ABOUT),
    "a StatefulSet beside it": (stateful, ROLLOUT, ABOUT),
    "Helm manages it": (patch(DEPLOYMENTS, {"metadata": {"annotations": HELM}}), ROLLOUT, ABOUT),
    "Argo CD manages the Service": (
        patch(SERVICES, {"metadata": {"annotations": {"argocd.argoproj.io/tracking-id": "shop:/Service:demo/echo"}}}),
        ROLLOUT,
        ABOUT,
    ),
    "not prepared, and to be taken back": (None, PrepareOptions(is_abort=True, seed=0), ABOUT),
}


async def standing(stage):
    """What prepare would write first: Services and Deployments, and its annotation anywhere."""
    found = {kind: (await stage.api.list(kind, Selection(NS))).items for kind in (DEPLOYMENTS, SERVICES, PODS)}
    specs = [[one["metadata"]["name"], one["spec"]] for kind in (DEPLOYMENTS, SERVICES) for one in found[kind]]
    assert PREPARED not in json.dumps(list(found.values()))
    return json.dumps(specs)


async def refusal(change, options, about):
    async with staged(deployment(), addons=()) as stage:
        if change is not None:
            await change(stage)
        if change is not None and "backend" in json.dumps(await standing(stage)):
            await stage.api.patch(SERVICES, "echo", Patch({"spec": {"selector": {"backend": "default"}}}), NS)
        before = await standing(stage)
        try:
            plan = await plan_prepare(stage.client, about, options)
        except ApiError as error:
            return f"error: {error.message}\n"
        show(plan)
        result = await carry_out(stage.client, plan, options)
        assert result.result in ("refused", "unchanged"), result
        assert await standing(stage) == before
        return f"{sentence(plan, result) if plan.done else result.result}\n"


def test_every_refusal_says_what_stands_against_it_and_the_way_out(capsys, golden):
    told = []
    for title, case in CASES.items():
        end = vtime.run(refusal(*case), limit_seconds=100)
        told.append(f"## {title}\n{capsys.readouterr().err}{end}")
    golden("cli/prepare-refusals.txt", "\n".join(told))


@pytest.mark.parametrize(
    "words",
    [
        ["sts/db", "--service", "echo"],
        ["ds/log", "--service", "echo"],
        ["job/once", "--service", "echo"],
        ["deploy/echo"],
        ["--service", "echo"],
        ["deploy/echo", "--service", "echo", "--label", "two words"],
        ["deploy/echo", "--service", "echo", "--label", f"{'k' * 64}=v"],
    ],
    ids=["sts", "ds", "job", "no-service", "no-deployment", "no-label", "long-label"],
)
def test_what_the_command_line_refuses_is_one_line(words, capsys, golden, request, monkeypatch):
    monkeypatch.setattr("sys.argv", ["tidegate"])  # how it was called is part of what it says
    with pytest.raises(SystemExit) as leaving:
        command.main(["prepare", *words])
    said = capsys.readouterr().err
    told = f"$ tidegate prepare {' '.join(words)}\n{said}exit {leaving.value.code}\n"
    assert leaving.value.code in (2, 3)
    golden(f"cli/prepare-usage-{request.node.callspec.id}.txt", told)


def test_who_may_not_write_is_refused_before_the_first_write():
    """A 403 in the middle would leave a paused Deployment."""

    async def story():
        async with staged(deployment(), addons=()) as stage:
            inner, asked = stage.client._exchange, []

            async def exchange(request):
                response = await inner(request)
                if not request.path.endswith("selfsubjectaccessreviews"):
                    return response
                body = json.loads(await response.read())
                attributes = body["spec"]["resourceAttributes"]
                body["status"] = {"allowed": attributes["resource"] != "replicasets"}
                asked.append(attributes)
                response.body = json.dumps(body).encode()
                return response

            stage.client._exchange = exchange
            plan = await plan_prepare(stage.client, ABOUT, IN_PLACE)
            stage.client._exchange = inner
            assert [str(one) for one in plan.refusals] == [
                "these credentials may not patch replicasets.apps in namespace demo"
            ]
            assert asked

    vtime.run(story(), limit_seconds=100)
