"""Installing and taking away, on a virtual lab: what is planned, waited for, refused, left."""

from __future__ import annotations

import asyncio
import copy

import pytest
from stage import NS, deployment, first, other_node, play

from tidegate.agent.manifests import Installation, pieces, sweep
from tidegate.client.install import (
    VERSION,
    carry_out_install,
    named,
    offered,
    plan_install,
    skew,
    stamped,
    until_ready,
)
from tidegate.client.own_objects import PATIENCE_SECONDS
from tidegate.client.uninstall import carry_out_uninstall, plan_uninstall
from tidegate.kube.api import CUSTOMRESOURCEDEFINITIONS, DEPLOYMENTS, NAMESPACES, PODS, RELEASES, SERVICES, Patch
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError
from tidegate.kube.exchange import Request
from tidegate.model.names import SYSTEM_NAMESPACE
from tidegate.operator import crds
from tidegate.rehearse.addons import OFFER

OURS = "0.1.0"
OF = Installation("tidegate/echo:v1")


def echoing():
    """The installation with containers that a lab can run: every container is an echo."""
    made = []
    for piece in pieces(OF):
        one = copy.deepcopy(piece.manifest)
        if one["kind"] in ("Deployment", "DaemonSet"):
            spec = one["spec"]["template"]["spec"]
            port = 18080 + len(made)
            container = {
                "name": "echo",
                "image": OF.image,
                "env": [{"name": "PORT", "value": str(port)}],
                "readinessProbe": {"httpGet": {"path": "/healthz", "port": port}, "periodSeconds": 1},
            }
            one["spec"]["template"]["spec"] = {
                "containers": [container],
                "tolerations": spec.get("tolerations", []),
            }
        made.append(one)
    return stamped(made, OURS, OF.image)


async def installed(stage, manifests):
    plan = await plan_install(stage.client, manifests, OURS)
    told, progress = [], []
    await carry_out_install(stage.client, plan, False, lambda one: told.append((one.name, one.change)))
    missing = await until_ready(stage.client, manifests, 60, progress.append)
    return plan, told, progress, missing


def test_it_is_planned_applied_waited_for_and_the_second_time_nothing_is_changed():
    async def story(stage):
        manifests = echoing()
        plan, told, progress, missing = await installed(stage, manifests)
        assert not plan.refused and {one.change for one in plan.items} == {"created"}
        assert [name for name, _ in told] == [named(one) for one in manifests]
        assert missing == () and progress[-1] == () and len(progress) > 1
        again, _, _, _ = await installed(stage, manifests)
        assert {one.change for one in again.items} == {"unchanged"}, [
            one.name for one in again.items if one.change != "unchanged"
        ]
        assert not again.is_changing
        found = await stage.api.get(NAMESPACES, SYSTEM_NAMESPACE)
        assert found["metadata"]["annotations"][VERSION] == OURS
        other = copy.deepcopy(manifests)
        other[-1]["rules"] = other[-1]["rules"][:1]
        changed, _, _, _ = await installed(stage, other)
        assert [one.name for one in changed.items if one.change == "changed"] == [named(other[-1])]

    play(story, deployment(gate=False), addons=())


@pytest.mark.parametrize("writes", [1, 2, 5, 9, 14])
def test_a_run_that_was_killed_is_finished_by_the_next(writes):
    class Dead(Exception):
        pass

    async def story(stage):
        manifests, left = echoing(), [writes]

        async def mortal(request):
            if request.method == "PATCH" and "dryRun" not in dict(request.query):
                if not left[0]:
                    raise Dead
                left[0] -= 1
            return await stage.lab.lab.exchange(request)

        client = KubeClient(mortal, "lab")
        with pytest.raises(Dead):
            await carry_out_install(client, await plan_install(client, manifests, OURS), False, lambda one: None)
        plan, _, _, missing = await installed(stage, manifests)
        changes = [one.change for one in plan.items]
        assert changes.count("unchanged") >= writes and set(changes) <= {"created", "unchanged"}
        assert missing == ()

    play(story, deployment(gate=False), addons=())


def test_what_is_not_ready_is_named_with_its_reason():
    async def story(stage):
        manifests = stamped([one.manifest for one in pieces(Installation("nowhere/tidegate:1"))], OURS, "x")
        plan = await plan_install(stage.client, manifests, OURS)
        await carry_out_install(stage.client, plan, False, lambda one: None)
        missing = await until_ready(stage.client, manifests, 20, lambda lines: None)
        assert any("daemonset.apps/tidegate-agent: 0 of 3 ready" in line for line in missing), missing
        assert any("on node-" in line and ("ErrImagePull" in line or "not ready" in line) for line in missing), missing

    play(story, deployment(gate=False), addons=())


def test_a_permission_that_is_missing_is_told_before_anything_is_changed():
    async def story(stage):
        token = stage.lab.register_token("ann", ["get,list,watch:*", "create,patch:namespaces,services"])
        client = KubeClient(stage.lab.exchange_as(token), "lab")
        plan = await plan_install(client, echoing(), OURS)
        assert "these credentials may not patch daemonsets.apps in namespace tidegate-system" in plan.refused
        assert plan.items == ()
        with pytest.raises(ApiError):
            await stage.api.get(NAMESPACES, SYSTEM_NAMESPACE)

    play(story, deployment(gate=False), addons=())


def test_a_field_that_another_manager_keeps_is_a_conflict_until_it_is_taken():
    async def story(stage):
        manifests = echoing()
        await installed(stage, manifests)
        name = next(one["metadata"]["name"] for one in manifests if one["kind"] == "Deployment")
        path = DEPLOYMENTS.path(SYSTEM_NAMESPACE, name)
        headers = {"content-type": "application/merge-patch+json"}
        body = b'{"spec": {"replicas": 2}}'
        await stage.client.request(Request("PATCH", path, (("fieldManager", "gitops"),), headers, body))
        plan = await plan_install(stage.client, manifests, OURS)
        [refused] = plan.refused
        assert "--force-conflicts" in refused and name in refused
        taken = await plan_install(stage.client, manifests, OURS, is_forced=True)
        assert not taken.refused

    play(story, deployment(gate=False), addons=())


@pytest.mark.parametrize(
    ("installed_version", "ours", "says"),
    [
        ("0.1.0", "0.1.3", ""),
        ("0.1.0", "0.2.0", ""),
        ("0.2.0", "0.1.0", ""),
        ("0.1.0", "0.3.0", "an older command line first"),
        ("0.4.0", "0.1.0", "pip install tidegate==0.4.0"),
        ("1.0.0", "0.9.0", "pip install tidegate==1.0.0"),
        ("main", "0.1.0", "cannot compare"),
    ],
)
def test_neighbouring_versions_get_along_and_others_are_refused_with_the_way(installed_version, ours, says):
    why = skew(installed_version, ours)
    assert says in why and bool(why) is bool(says)


def test_another_version_that_is_installed_refuses_before_anything_is_asked():
    async def story(stage):
        await installed(stage, stamped(echoing(), "0.7.0", "x")[:1])
        plan = await plan_install(stage.client, echoing(), OURS)
        assert plan.items == () and "0.7.0 is installed and this command line is 0.1.0" in plan.refused[0]

    play(story, deployment(gate=False), addons=())


# --- away ---


def test_it_is_taken_away_whole_and_what_stays_is_listed():
    async def story(stage):
        manifests = echoing()
        await installed(stage, manifests)
        await stage.api.patch(SERVICES, "echo", Patch({"metadata": {"annotations": {"tidegate.dev/x": "1"}}}), NS)
        plan = await plan_uninstall(stage.client, manifests, False)
        assert not plan.refused and plan.image == OF.image
        assert plan.staying == ("service/demo/echo: tidegate.dev/x",)
        told = []
        swept = sweep(OF)
        swept["spec"]["template"]["spec"] = {
            "containers": [{"name": "sweep", "image": OF.image}],
            "tolerations": [{"operator": "Exists"}],
        }
        left = await carry_out_uninstall(stage.client, plan, swept, 120, told.append)
        assert left == (), left
        assert any("table inet tidegate" in line for line in told)
        ends = [line.partition(" deleted")[0] for line in told if line.endswith("deleted")]
        assert ends[:2] == [
            "mutatingwebhookconfiguration.admissionregistration.k8s.io/tidegate",
            "deployment.apps/tidegate-operator",
        ], "no pod gets a gate that nobody will hold; the operator's own gate is held to its end"
        assert ends[-1] == "namespace/tidegate-system"
        for one in manifests:
            with pytest.raises(ApiError):
                metadata = one["metadata"]
                from tidegate.client.install import RESOURCES

                await stage.api.get(RESOURCES[one["kind"]], metadata["name"], metadata.get("namespace", ""))
        assert (await plan_uninstall(stage.client, manifests, False)).there == ()

    play(story, deployment(gate=False), addons=())


@pytest.mark.parametrize("is_resolved", [True, False])
def test_releases_end_before_the_operator_and_no_finalizer_keeps_them_or_their_kind(is_resolved):
    """With an operator that lets go of its Release, and with one that never does."""

    async def story(stage):
        manifests = stamped([*(crds.manifests()), *echoing()], OURS, OF.image)
        manifests.sort(key=lambda one: one["kind"] != "Namespace")
        await installed(stage, manifests)
        release = {
            "apiVersion": RELEASES.api_version,
            "kind": RELEASES.kind,
            "metadata": {"name": "echo", "namespace": NS, "finalizers": ["tidegate.dev/release"]},
            "spec": {"workload": "echo", "restart": "1"},
        }
        await stage.client.create(RELEASES, release, NS)
        told, began = [], stage.now
        plan = await plan_uninstall(stage.client, manifests, False)
        removing = asyncio.create_task(carry_out_uninstall(stage.client, plan, None, 300, told.append))
        if is_resolved:
            await asyncio.sleep(5)
            await stage.client.patch(RELEASES, "echo", Patch({"metadata": {"finalizers": None}}), NS)
        assert await removing == ()
        order = [told.index(f"{one} deleted") for one in ("release/demo/echo", "deployment.apps/tidegate-operator")]
        assert order == sorted(order)
        freed = "release/demo/echo is nobody's any more: what it was about stays as it is"
        assert (freed in told) is not is_resolved
        assert (stage.now - began < PATIENCE_SECONDS) is is_resolved
        assert told[-1] == "namespace/tidegate-system deleted" and "customresourcedefinition" in told[-2]
        for resource, name, space in ((RELEASES, "echo", NS), (CUSTOMRESOURCEDEFINITIONS, "releases.tidegate.dev", "")):
            with pytest.raises(ApiError):
                await stage.client.get(resource, name, space)
        assert (await stage.api.get(DEPLOYMENTS, "echo", NS))["status"]["readyReplicas"] == 3, "and it goes on"

    play(story, deployment(gate=False), addons=())


def test_a_workload_with_a_gate_and_a_pod_that_is_held_refuse_it():
    async def story(stage):
        name = await first(stage)
        await stage.api.patch(PODS, name, Patch({"metadata": {"labels": {"tidegate.dev/held": "cut"}}}), NS)
        plan = await plan_uninstall(stage.client, echoing(), False)
        assert plan.refused == (
            f"pod/demo/{name} is held: `tidegate restore` gives it back, `tidegate drain` retires it",
            "deployment/demo/echo has a gate: without a holder its pods are told to stop at once; take it out first",
        )
        assert len((await plan_uninstall(stage.client, echoing(), True)).refused) == 1

    play(story)


def test_a_pod_with_a_gate_that_no_template_shows_refuses_it_too():
    """Of a controller that nobody here knows, a bare one, or from before its template lost the gate."""

    async def story(stage):
        spec = deployment()["spec"]["template"]["spec"]
        bare = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bare", "namespace": NS}, "spec": spec}
        await stage.api.create(PODS, bare)
        await asyncio.sleep(5)
        plan = await plan_uninstall(stage.client, echoing(), False)
        [refused] = plan.refused
        assert refused.startswith(
            "pod/demo/bare has a gate: without a holder it is told to stop at once; it goes first"
        )
        assert "kubectl delete mutatingwebhookconfiguration tidegate" in refused, (
            "the way out, where the webhook gave it"
        )
        assert not (await plan_uninstall(stage.client, echoing(), True)).refused

    play(story, deployment(gate=False))


def test_a_gate_that_is_held_is_waited_for_before_anything_is_deleted():
    async def story(stage):
        name = await first(stage)
        stage.fault("proxy-freeze", await other_node(stage, name), 10)
        ending = asyncio.create_task(stage.end(name))
        await asyncio.sleep(2)
        plan = await plan_uninstall(stage.client, echoing(), True)
        assert plan.holding == (f"demo/{name}",)
        told = []
        leaving = asyncio.create_task(carry_out_uninstall(stage.client, plan, None, 60, told.append))
        await asyncio.sleep(4)
        assert told == [f"waiting for held gates: demo/{name}"]
        await stage.api.get(NAMESPACES, SYSTEM_NAMESPACE)
        result, _ = await ending
        assert result["result"] == "verified"
        leaving.cancel()

    play(story)


def test_a_gate_that_is_held_longer_than_the_patience_leaves_everything_as_it_is():
    async def story(stage):
        name = await first(stage)
        stage.fault("proxy-freeze", await other_node(stage, name), 40)
        ending = asyncio.create_task(stage.end(name))
        await asyncio.sleep(2)
        plan = await plan_uninstall(stage.client, echoing(), True)
        left = await carry_out_uninstall(stage.client, plan, None, 5, lambda line: None)
        assert left == (f"the gate of pod/demo/{name} is still held: no agent and no holder was deleted",)
        result, _ = await ending
        assert result["result"] == "verified"

    play(story)


# --- a bare lab ---


def test_a_bare_lab_offers_its_installation_and_gates_hold_once_it_is_applied():
    async def story(stage):
        manifests = stamped((await offered(stage.client)).objects, OURS, "")
        assert {one["kind"] for one in manifests} >= {"Namespace", "Service", "Pod"}
        _, _, _, missing = await installed(stage, manifests)
        assert missing == ()
        await asyncio.sleep(3)
        result, _ = await stage.end(await first(stage))
        assert result["result"] == "verified"
        again = await plan_install(stage.client, manifests, OURS)
        assert {one.change for one in again.items} == {"unchanged"}, again.items
        plan = await plan_uninstall(stage.client, (await offered(stage.client)).objects, True)
        assert await carry_out_uninstall(stage.client, plan, None, 120, lambda line: None) == ()
        with pytest.raises(ApiError):
            await stage.api.get(NAMESPACES, SYSTEM_NAMESPACE)

    play(story, addons=(OFFER,))


def test_no_other_cluster_offers_one():
    async def story(stage):
        return await offered(stage.client)

    assert play(story, addons=()) is play(story) is None
