"""``tidegate drain`` and ``status`` on a real control plane without agents: assumed, never verified, never blind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
from pathlib import Path

import pytest
import yaml
from tests.realcluster.fake_kubelet import NODE
from tests.realcluster.objects import pod
from tests.realcluster.scene import scene

from tidegate.agent.roles import ASK, VERB_ROLES, users
from tidegate.client import VerbOptions, drain_pod
from tidegate.client.budgets import denied
from tidegate.engine import act
from tidegate.kube.api import PODDISRUPTIONBUDGETS, PODS, SERVICES, Patch, Resource, Selection
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError
from tidegate.kube.http import HttpTransport
from tidegate.kube.kubeconfig import load
from tidegate.model import pod as pods
from tidegate.model.names import DRAIN, DRAIN_RESULT, RESERVATIONS, DrainResult, Ending

pytestmark = pytest.mark.realcluster

TOKENS = Resource("authentication.k8s.io", "v1", "tokenrequests", "TokenRequest")
RBAC = "rbac.authorization.k8s.io"
ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
BRIEF = ("--settle", "300ms", "--yes")


async def test_a_drain_without_agents_is_assumed_and_everything_is_written_down(real_cluster):
    async with scene(real_cluster, "drain-assumed") as here:
        name = (await here.names())[0]
        start = (await here.api.list(PODS, Selection(here.namespace))).resource_version
        ran = await here.tidegate("drain", f"pod/{name}", *BRIEF, "-o", "json")
        assert ran.code == 4, ran.err
        told = json.loads(ran.out)
        assert (told["result"], told["pod"], told["epoch"]) == ("assumed", name, None)
        assert "no agent to ask" in told["reason"] and "verified" not in ran.out
        assert re.match(r"context real, server https://127.0.0.1:\d+, namespace drain-assumed\n", ran.err)
        seen = []
        async for event in here.api.watch(PODS, Selection(here.namespace, fields=f"metadata.name={name}"), start):
            seen.append((event.type, event.object["metadata"]))
            if event.type == "DELETED":
                break
        cut = next(at for at, (_, meta) in enumerate(seen) if meta["labels"]["app"] == "tidegate-cut")
        assert DRAIN in seen[cut][1]["annotations"], "the cut and its record are one write"
        deleted = next(at for at, (_, meta) in enumerate(seen) if meta.get("deletionTimestamp"))
        assert cut < deleted
        assert json.loads(seen[deleted][1]["annotations"][DRAIN_RESULT])["result"] == "assumed"
        left = await here.api.get(SERVICES, "web", here.namespace)
        assert RESERVATIONS not in (left["metadata"].get("annotations") or {})

        async def is_replaced():
            return len(await here.names()) == 3 and name not in await here.names()

        await here.until(is_replaced)


async def test_status_says_that_nobody_can_be_asked(real_cluster):
    async with scene(real_cluster, "status-plain") as here:
        ran = await here.tidegate("status", "svc/web")
        assert ran.code == 0, ran.err
        assert ran.out.count("routed  ready") == 3
        assert f"{NODE}  -  cannot be asked: there is no agent on {NODE}" in ran.out
        assert "drains can only be assumed" in ran.out
        missing = await here.tidegate("status", "svc/nosuch")
        assert missing.code == 1 and 'services "nosuch" not found in namespace status-plain' in missing.err


async def test_the_floor_of_a_service_and_a_budget_refuse_before_anything_is_changed(real_cluster):
    async with scene(real_cluster, "drain-floor", replicas=1) as here:
        (name,) = await here.names()
        before = await here.api.get(PODS, name, here.namespace)
        ran = await here.tidegate("drain", f"pod/{name}", "--no-replace", *BRIEF)
        assert ran.code == 3 and "refused" in ran.out and "drain-floor/web" in ran.out
        assert await here.api.get(PODS, name, here.namespace) == before
        service_now = await here.api.get(SERVICES, "web", here.namespace)
        assert RESERVATIONS not in (service_now["metadata"].get("annotations") or {})


async def test_the_only_pod_of_a_deployment_is_drained_once_another_is_ready(real_cluster):
    async with scene(real_cluster, "drain-replace", replicas=1) as here:
        (name,) = await here.names()
        ran = await here.tidegate("drain", "deploy/web", *BRIEF)
        assert ran.code == 4 and f"pod/{name} assumed" in ran.out, ran.err
        assert "has 0 of 1 ready pods" in ran.err, "it waited for the replacement"
        (other,) = await here.names()
        assert other != name
        service_now = await here.api.get(SERVICES, "web", here.namespace)
        assert RESERVATIONS not in (service_now["metadata"].get("annotations") or {})


async def test_a_budget_is_asked_by_a_dry_run_that_evicts_nothing(real_cluster):
    async with scene(real_cluster, "drain-budget", replicas=2) as here:
        subject = pods.decode(await here.api.get(PODS, (await here.names())[0], here.namespace))
        assert await denied(here.api, subject, ()) == ()
        budget = {
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "metadata": {"name": "all", "namespace": here.namespace},
            "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}},
        }  # fmt: skip
        await here.api.create(PODDISRUPTIONBUDGETS, budget)
        async with asyncio.timeout(20):
            while "needs 2 healthy pods and has 2" not in "".join(await denied(here.api, subject, ())):
                await asyncio.sleep(0.1)
        budget["spec"]["minAvailable"] = 1
        await here.api.patch(PODDISRUPTIONBUDGETS, "all", Patch({"spec": budget["spec"]}), here.namespace)
        async with asyncio.timeout(20):
            while await denied(here.api, subject, ()):
                await asyncio.sleep(0.1)
        other = pods.decode(await here.api.get(PODS, (await here.names())[1], here.namespace))
        assert "with 1 in flight already" in "".join(await denied(here.api, subject, (other,)))
        now = pods.decode(await here.api.get(PODS, subject.name, here.namespace))
        assert not now.is_terminating and now.uid == subject.uid


async def test_nothing_is_deleted_without_uid_and_version_however_busy_the_pod(real_cluster):
    """Somebody writes to the pod all the time: each conflict is looked at again, and the DELETE still names both."""
    async with scene(real_cluster, "drain-busy") as here:
        name = (await here.names())[0]
        transport = HttpTransport(load(here.kubeconfig))
        deletes = []

        async def spied(request):
            if request.method == "DELETE" and "/pods/" in request.path:
                deletes.append((request.path, json.loads(request.body)))
            return await transport(request)

        async def disturb():
            for number in range(10_000):
                with contextlib.suppress(ApiError):
                    body = {"metadata": {"annotations": {"busy": str(number)}}}
                    await here.api.patch(PODS, name, Patch(body), here.namespace)
                await asyncio.sleep(0.03)

        disturbing = asyncio.create_task(disturb())
        try:
            client = KubeClient(spied)
            async with asyncio.timeout(20):
                result = await drain_pod(client, here.namespace, name, VerbOptions(settle_seconds=0.2))
        finally:
            disturbing.cancel()
            await transport.close()
        assert result.result is Ending.ASSUMED
        assert deletes
        for path, body in deletes:
            assert path.endswith(f"/pods/{name}")
            assert set(body["preconditions"]) == {"uid", "resourceVersion"}


async def test_another_pod_of_the_same_name_is_left_alone(real_cluster):
    """As a StatefulSet makes them: the pod that is drained goes, one with its name comes."""
    async with scene(real_cluster, "drain-namesake") as here:
        bare = pod("web-0", nodeName=NODE)
        await here.api.create(PODS, bare, here.namespace)

        async def is_routed():
            return len(await here.routed()) == 4

        await here.until(is_routed)
        before = pods.decode(await here.api.get(PODS, "web-0", here.namespace))
        states = []
        draining = asyncio.create_task(
            drain_pod(
                here.api, here.namespace, "web-0", VerbOptions(settle_seconds=1.0),
                lambda drain: states.append(drain.state.name),
            )
        )  # fmt: skip

        async def is_fenced():
            return "FENCED" in states

        await here.until(is_fenced)
        await here.api.delete(PODS, "web-0", here.namespace, act.Deletion(0))
        made = await here.api.create(PODS, bare, here.namespace)
        async with asyncio.timeout(15):
            result = await draining
        assert result.result is Ending.BYPASSED
        after = await here.api.get(PODS, "web-0", here.namespace)
        assert after["metadata"]["uid"] == made["metadata"]["uid"] != before.uid
        assert after["metadata"]["labels"] == {"app": "web"} and not after["metadata"].get("deletionTimestamp")
        with pytest.raises(ApiError) as refused:
            await act.record_result(here.api, before, DrainResult(Ending.ASSUMED))
        assert refused.value.is_conflict


async def test_a_drain_killed_in_the_middle_goes_on_where_it_stood(real_cluster):
    await asyncio.gather(*(_killed_at(real_cluster, state) for state in ("cut", "fenced", "quiet", "drained")))


async def _killed_at(real_cluster, state):
    async with scene(real_cluster, f"drain-killed-{state}") as here:
        name = (await here.names())[0]
        process = await here.start("drain", f"pod/{name}", "--settle", "600ms", "--yes")
        async with asyncio.timeout(15):
            while line := (await process.stderr.readline()).decode():
                if re.search(rf" s +{state}\b", line):
                    break
        process.send_signal(signal.SIGKILL)
        await process.wait()
        try:
            left = await here.api.get(PODS, name, here.namespace)
        except ApiError:
            assert state == "drained", "deleted too early"
            return
        if state != "drained":
            assert not left["metadata"].get("deletionTimestamp")
        assert left["metadata"]["labels"]["app"] != "web" or state == "cut"
        again = await here.tidegate("drain", f"pod/{name}", *BRIEF)
        if state == "drained" and again.code != 4:
            return  # the DELETE was on its way when it died
        assert again.code == 4, again.err
        assert "continue the drain" in again.err or state == "cut"
        assert "assumed" in again.out

        async def is_gone():
            found = (await here.api.list(PODS, Selection(here.namespace))).items
            return name not in [one["metadata"]["name"] for one in found]

        await here.until(is_gone)


# --- permissions ---


def roles():
    """The roles for people that ``install --print`` makes, as far as a drain without agents takes them."""
    wanted = set(VERB_ROLES["drain"]) - {ASK}
    return [one.manifest for one in users() if one.manifest["metadata"]["name"] in wanted]


@contextlib.asynccontextmanager
async def restricted(here, tmp_path, without=None):
    """A kubeconfig of a service account with the documented roles, less one (verb, resource)."""
    account = {"kind": "ServiceAccount", "name": "careful", "namespace": here.namespace}
    await here.api.create(ACCOUNTS, {"metadata": {"name": "careful"}}, here.namespace)
    made = []
    for role in roles():
        name = f"{role['metadata']['name']}-{here.namespace}"
        for rule in role["rules"]:
            if without and without[1] in rule["resources"]:
                rule["verbs"] = [verb for verb in rule["verbs"] if verb != without[0]] or ["none"]
        is_wide = role["metadata"]["name"].endswith("look")
        kind = "ClusterRoleBinding" if is_wide else "RoleBinding"
        binding = {
            "metadata": {"name": name}, "subjects": [account],
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": name},
        }  # fmt: skip
        roles_ = Resource(RBAC, "v1", "clusterroles", "ClusterRole", False)
        bindings = Resource(RBAC, "v1", f"{kind.lower()}s", kind, not is_wide)
        await here.api.create(roles_, {**role, "metadata": {"name": name}})
        await here.api.create(bindings, binding, "" if is_wide else here.namespace)
        made += [(roles_, name, ""), (bindings, name, "" if is_wide else here.namespace)]
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {"name": "careful"}}
    token = (await here.api.create(ACCOUNTS, {**request, "spec": {}}, here.namespace, "token"))["status"]["token"]
    config = yaml.safe_load(Path(here.kubeconfig).read_text())
    config["clusters"][0]["cluster"]["certificate-authority"] = str(Path(here.kubeconfig).parent / "ca.crt")
    config["users"] = [{"name": "real", "user": {"token": token}}]
    path = tmp_path / "restricted"
    path.write_text(yaml.safe_dump(config))
    yield str(path)
    for resource, name, namespace in made:
        await here.api.delete(resource, name, namespace)


async def test_the_documented_roles_are_enough(real_cluster, tmp_path):
    async with scene(real_cluster, "drain-roles") as here, restricted(here, tmp_path) as kubeconfig:
        name = (await here.names())[0]
        ran = await here.tidegate("status", "svc/web", "--kubeconfig", kubeconfig)
        assert ran.code == 0 and ran.out.count("routed  ready") == 3, ran.err
        ran = await here.tidegate("drain", f"pod/{name}", *BRIEF, "--kubeconfig", kubeconfig)
        assert ran.code == 4 and "assumed" in ran.out, ran.err


@pytest.mark.parametrize(
    ("verb", "resource", "code", "said"),
    [
        ("get", "pods", 1, 'cannot get resource "pods"'),
        ("patch", "pods", 3, "may not patch pods in namespace"),
        ("delete", "pods", 3, "may not delete pods in namespace"),
        ("patch", "services", 3, "may not patch services in namespace"),
        ("list", "nodes", 3, "may not list nodes cluster-wide"),
        ("list", "endpointslices", 1, 'cannot list resource "endpointslices"'),
        ("list", "poddisruptionbudgets", 3, "may not list poddisruptionbudgets.policy in namespace"),
    ],
)
async def test_a_missing_permission_is_named_and_nothing_is_changed(real_cluster, tmp_path, verb, resource, code, said):
    namespace = f"drain-no-{verb}-{resource}"
    async with scene(real_cluster, namespace) as here, restricted(here, tmp_path, (verb, resource)) as kubeconfig:
        before = (await here.api.list(PODS, Selection(namespace))).items
        name = before[0]["metadata"]["name"]
        ran = await here.tidegate("drain", f"pod/{name}", *BRIEF, "--kubeconfig", kubeconfig)
        assert (ran.code, said in ran.out + ran.err) == (code, True), ran.err
        assert (await here.api.list(PODS, Selection(namespace))).items == before
