"""Pods of a lab as operators: they act under their own service account, and answer as webhooks."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

from tidegate import vtime
from tidegate.kube import wire
from tidegate.kube.api import CONFIGMAPS, DEPLOYMENTS, PODS, SERVICEACCOUNTS, SERVICES, Deletion, Resource, Selection
from tidegate.kube.connect import open_api
from tidegate.kube.errors import ApiError
from tidegate.kube.exchange import Request, Response, whole
from tidegate.lab.config import Addon, Image, LabConfig
from tidegate.lab.virtual import VirtualLab

RBAC = "rbac.authorization.k8s.io"
ROLES = Resource(RBAC, "v1", "clusterroles", "ClusterRole", False)
BINDINGS = Resource(RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", False)
HOOKS = Resource(
    "admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", False
)
HERE = "tests.lab.test_pod_accounts"
OPERATOR = Addon("operator", images=(Image("test/operator", f"{HERE}:main"), Image("test/hooks", f"{HERE}:hooks")))
HOOK_PORT = 9443


async def main(program: vtime.Program) -> int:
    """Writes down, again and again, what it may."""
    async with open_api(kubeconfig=program.env["KUBECONFIG"]) as api:
        while True:
            found = []
            for resource in (PODS, CONFIGMAPS):
                try:
                    await api.list(resource)
                    found.append("yes")
                except ApiError as error:
                    found.append(error.message)
            program.log(json.dumps(found))
            await asyncio.sleep(1)


async def hooks(program: vtime.Program) -> int:
    """A webhook that labels pods, and writes down who wrote them."""

    async def exchange(request: Request) -> Response:
        review = json.loads(request.body)
        asked = review["request"]
        program.log(json.dumps({"user": asked["userInfo"]["username"]}))
        response: dict[str, Any] = {"uid": asked["uid"], "allowed": True}
        if asked["operation"] == "CREATE" and "subResource" not in asked:
            patch = [{"op": "add", "path": "/metadata/labels/asked", "value": "yes"}]
            response |= {"patchType": "JSONPatch", "patch": base64.b64encode(json.dumps(patch).encode()).decode()}
        return whole(200, json.dumps({**review, "request": None, "response": response}).encode())

    await wire.serve(exchange, program.env["POD_IP"], HOOK_PORT)
    await asyncio.Event().wait()
    return 0


def pod(name: str = "operator", labels: Any = None, image: str = "test/operator:1", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": labels or {}},
        "spec": {"containers": [{"name": "c", "image": image}], **spec},
    }


def deployment() -> dict[str, Any]:
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "tidegate/echo:v1"}]}}
    spec = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    head = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"}}
    return {**head, "spec": spec}


def test_a_pod_may_what_is_bound_to_its_service_account():
    async def story():
        async with VirtualLab(LabConfig(nodes=1, addons=(OPERATOR,))) as lab:
            account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "op", "namespace": "default"}}
            await lab.api.create(SERVICEACCOUNTS, account)
            await lab.api.create(PODS, pod(serviceAccountName="op"))
            await asyncio.sleep(2)
            refused = 'User "system:serviceaccount:default:op" cannot list resource "pods" in API group ""'
            assert refused in (await said(lab))[0]
            rule = {"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]}
            role = {"apiVersion": f"{RBAC}/v1", "kind": "ClusterRole", "metadata": {"name": "op"}, "rules": [rule]}
            await lab.api.create(ROLES, role)
            binding = {
                "apiVersion": f"{RBAC}/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": "op"},
                "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "op"},
                "subjects": [{"kind": "ServiceAccount", "name": "op", "namespace": "default"}],
            }
            await lab.api.create(BINDINGS, binding)
            await asyncio.sleep(2)
            may_pods, may_configmaps = await said(lab)
            assert may_pods == "yes" and may_configmaps.startswith("configmaps is forbidden")

    vtime.run(story())


async def said(lab: VirtualLab) -> list[str]:
    """What the pod's last line tells: for pods, for config maps."""
    told: list[str] = json.loads((await lines(lab, "operator"))[-1])
    return told


async def lines(lab: VirtualLab, name: str) -> list[bytes]:
    """A pod's log."""
    response = await lab.lab.exchange(Request("GET", f"/api/v1/namespaces/default/pods/{name}/log"))
    return (await response.read()).splitlines()


def test_the_files_of_a_pod_go_with_it_and_one_that_wants_none_has_none():
    async def story():
        async with VirtualLab(LabConfig(nodes=1, addons=(OPERATOR,))) as lab:
            made = await lab.api.create(PODS, pod())
            folder = lab.scratch / "pods" / made["metadata"]["uid"]
            await asyncio.sleep(2)
            assert (folder / "token").exists()
            await lab.api.delete(PODS, "operator", "default", Deletion(grace_seconds=0))
            await asyncio.sleep(2)
            assert not folder.exists()
            made = await lab.api.create(PODS, pod(automountServiceAccountToken=False))
            await asyncio.sleep(2)
            assert not (lab.scratch / "pods" / made["metadata"]["uid"]).exists()

    vtime.run(story())


def test_webhooks_in_a_lab_are_asked_over_its_own_network_as_whom_the_labs_parts_write():
    """A pod behind a Service of the lab is the webhook; it is asked by plain HTTP, and sees who writes."""

    async def story():
        async with VirtualLab(LabConfig(nodes=1, addons=(OPERATOR,))) as lab:
            server = pod(name="hooks", labels={"app": "hooks"}, image="test/hooks:1")
            await lab.api.create(PODS, server)
            spec = {"selector": {"app": "hooks"}, "ports": [{"port": 443, "targetPort": HOOK_PORT}]}
            service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hooks", "namespace": "default"}}
            await lab.api.create(SERVICES, {**service, "spec": spec})
            await asyncio.sleep(5)
            rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["pods", "pods/*"]}]
            one = {
                "name": "h.example.com",
                "rules": rules,
                "clientConfig": {"service": {"name": "hooks", "namespace": "default", "path": "/mutate"}},
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
                "failurePolicy": "Ignore",
            }
            head = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration"}
            await lab.api.create(HOOKS, {**head, "metadata": {"name": "m"}, "webhooks": [one]})
            made = await lab.api.create(DEPLOYMENTS, deployment())
            await asyncio.sleep(5)
            pods = (await lab.api.list(PODS, Selection("default", "app=web"))).items
            assert [one["metadata"]["labels"].get("asked") for one in pods] == ["yes", "yes"]
            assert all(one["status"]["phase"] == "Running" for one in pods), made
            users = {json.loads(line)["user"] for line in await lines(lab, "hooks")}
            assert users == {"system:kube-controller-manager", "system:kube-scheduler", "system:node:node-1"}

    vtime.run(story())
