"""Pods act under their own service account: by the kubeconfig they find, they may what is bound to it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tidegate import vtime
from tidegate.kube.api import CONFIGMAPS, PODS, SERVICEACCOUNTS, Deletion, Resource
from tidegate.kube.connect import open_api
from tidegate.kube.errors import ApiError
from tidegate.kube.exchange import Request
from tidegate.lab.config import Addon, Image, LabConfig
from tidegate.lab.virtual import VirtualLab

RBAC = "rbac.authorization.k8s.io"
ROLES = Resource(RBAC, "v1", "clusterroles", "ClusterRole", False)
BINDINGS = Resource(RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", False)
OPERATOR = Addon("operator", images=(Image("test/operator", "tests.lab.test_pod_accounts:main"),))


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


def pod(**spec: Any) -> dict[str, Any]:
    container = {"name": "c", "image": "test/operator:1"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "operator", "namespace": "default"},
        "spec": {"containers": [container], **spec},
    }


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
    response = await lab.lab.exchange(Request("GET", "/api/v1/namespaces/default/pods/operator/log"))
    told: list[str] = json.loads((await response.read()).splitlines()[-1])
    return told


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
