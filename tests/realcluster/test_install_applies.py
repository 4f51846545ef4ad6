"""``tidegate install`` and ``uninstall`` carried out on a real API server, by a user's command line.

A control plane of its own with one node, whose kubelet and scheduler are stand-ins: nothing runs, what is judged is
what the server and its controllers make of the objects. The stories are told in their order.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from tests.realcluster import control_plane
from tests.realcluster.fake_kubelet import NODE, fake_kubelet

from tidegate import vtime
from tidegate.kube.api import NODES, PODS, Patch, Selection
from tidegate.kube.connect import open_api
from tidegate.kube.errors import ApiError, KubeError
from tidegate.lab.instants import stamp
from tidegate.model.names import SYSTEM_NAMESPACE

pytestmark = pytest.mark.realcluster
BIN = Path(sys.executable).parent
IMAGE = "registry.example/tidegate:0.1.0"
INSTALL = ("install", "--image", IMAGE, "--yes")


def run(plane, program, *words, code=0, text="", kubeconfig=None):
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig or plane.kubeconfig)}
    environment["PATH"] = f"{BIN}:{os.environ['PATH']}"
    command = [program, *words] if program == "kubectl" else [sys.executable, "-m", "tidegate", *words]
    ran = subprocess.run(command, input=text, capture_output=True, text=True, env=environment, timeout=120)
    assert ran.returncode == code, (words, ran.returncode, ran.stdout, ran.stderr)
    return ran


def kubectl(plane, *words, **more):
    return run(plane, "kubectl", *words, **more).stdout


async def bind_all(api):
    """The scheduler's stand-in: every pod of ours onto the one node."""
    while True:
        with contextlib.suppress(ApiError):
            for pod in (await api.list(PODS, Selection(SYSTEM_NAMESPACE))).items:
                if not pod["spec"].get("nodeName"):
                    binding = {
                        "apiVersion": "v1",
                        "kind": "Binding",
                        "metadata": {"name": pod["metadata"]["name"], "namespace": SYSTEM_NAMESPACE},
                        "target": {"apiVersion": "v1", "kind": "Node", "name": NODE},
                    }
                    with contextlib.suppress(ApiError):
                        await api.create(PODS, binding, SYSTEM_NAMESPACE, "binding")
        await asyncio.sleep(0.2)


def node_of(plane, stop, ready):
    async def live():
        async with open_api(kubeconfig=str(plane.kubeconfig)) as api:
            condition = {"type": "Ready", "status": "True"}
            labels = {"kubernetes.io/os": "linux"}
            node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE, "labels": labels}}
            await api.create(NODES, {**node, "status": {"conditions": [condition]}})
            binding = asyncio.create_task(bind_all(api))
            async with fake_kubelet(api, ""):
                ready.set()
                while not await asyncio.to_thread(stop.wait, 5.0):
                    # Else the node controller calls it lost after 50 s, and its pods not ready, on a slow machine.
                    beat = {**condition, "lastHeartbeatTime": stamp(vtime.now())}
                    patch = Patch({"status": {"conditions": [beat]}}, "strategic", "status")
                    with contextlib.suppress(KubeError):
                        await api.patch(NODES, NODE, patch)
            binding.cancel()

    asyncio.run(live())


@pytest.fixture(scope="module")
def plane(tmp_path_factory):
    binaries = control_plane.assets()
    if binaries is None:
        pytest.skip(f"KUBEBUILDER_ASSETS has no {', '.join(control_plane.NEEDED)}")
    with control_plane.running(tmp_path_factory.mktemp("applies"), binaries) as one:
        stop, ready = threading.Event(), threading.Event()
        thread = threading.Thread(target=node_of, args=(one, stop, ready), daemon=True)
        thread.start()
        assert ready.wait(30)
        yield one
        stop.set()
        thread.join(10)


def ours(plane):
    kinds = "namespaces,clusterroles,clusterrolebindings,mutatingwebhookconfigurations,customresourcedefinitions"
    return [one for one in kubectl(plane, "get", kinds, "-o", "name").split() if "tidegate" in one]


def test_a_dry_run_says_what_would_be_created_and_creates_nothing(plane):
    told = run(plane, "tidegate", "install", "--image", IMAGE, "--dry-run")
    assert "created   daemonset.apps/tidegate-agent" in told.stderr and f"server {plane.server}" in told.stderr
    assert ours(plane) == []


def test_who_may_not_is_told_so_before_anything_is_changed(plane):
    kubectl(plane, "create", "serviceaccount", "ann")
    kubectl(plane, "create", "clusterrole", "some", "--verb=get,create,patch", "--resource=namespaces,services")
    kubectl(plane, "create", "clusterrolebinding", "some", "--clusterrole=some", "--serviceaccount=default:ann")
    config = yaml.safe_load(plane.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": kubectl(plane, "create", "token", "ann").strip()}
    own = plane.kubeconfig.parent / "ann.yaml"  # beside the authority it names
    own.write_text(yaml.safe_dump(config))
    told = run(plane, "tidegate", *INSTALL, code=3, kubeconfig=own).stderr
    assert "refused: these credentials may not create clusterroles.rbac.authorization.k8s.io cluster-wide" in told
    assert "refused: these credentials may not patch daemonsets.apps in namespace tidegate-system" in told
    assert ours(plane) == []


def test_it_is_applied_and_waited_for(plane):
    made = run(plane, "tidegate", *INSTALL, "-o", "json", "--timeout", "60s")
    document = json.loads(made.stdout)
    assert document["applied"] and document["missing"] == [] and document["refused"] == []
    assert {one["change"] for one in document["items"]} == {"created"}
    assert "everything is ready" in made.stderr
    found = json.loads(
        kubectl(plane, "get", "ds,deploy", "-n", SYSTEM_NAMESPACE, "-o", "json", "--show-managed-fields")
    )["items"]
    assert len(found) == 4
    for one in found:
        managers = {(entry["manager"], entry["operation"]) for entry in one["metadata"]["managedFields"]}
        assert ("tidegate", "Apply") in managers
    namespace = json.loads(kubectl(plane, "get", "ns", SYSTEM_NAMESPACE, "-o", "json"))
    assert namespace["metadata"]["annotations"]["tidegate.dev/image"] == IMAGE


def test_again_it_changes_nothing_at_all(plane):
    kinds = "ns,ds,deploy,sa,roles,rolebindings,clusterroles,clusterrolebindings,svc"

    def versions():
        found = json.loads(kubectl(plane, "get", kinds, "-A", "-o", "json"))["items"]
        return {
            f"{one['kind']}/{one['metadata']['name']}": one["metadata"].get(
                "generation", one["metadata"]["resourceVersion"]
            )
            for one in found
            if "tidegate" in one["metadata"]["name"]
        }

    before = versions()
    document = json.loads(run(plane, "tidegate", *INSTALL, "-o", "json").stdout)
    assert {one["change"] for one in document["items"]} == {"unchanged"}, document["items"]
    assert versions() == before and len(before) > 15


def test_another_image_changes_what_runs_it_and_nothing_else(plane):
    words = ("install", "--image", f"{IMAGE}-next", "--dry-run", "-o", "json")
    document = json.loads(run(plane, "tidegate", *words).stdout)
    changed = {one["object"] for one in document["items"] if one["change"] == "changed"}
    assert changed == {
        f"namespace/{SYSTEM_NAMESPACE}",
        "deployment.apps/tidegate-coordinator",
        "deployment.apps/tidegate-operator",
        "daemonset.apps/tidegate-agent",
        "daemonset.apps/tidegate-holder",
    }


def test_fields_of_another_manager_refuse_it_until_they_are_taken(plane):
    kubectl(plane, "scale", "deploy", "tidegate-coordinator", "-n", SYSTEM_NAMESPACE, "--replicas=2")
    told = run(plane, "tidegate", *INSTALL, code=3).stderr
    assert "refused: deployment.apps/tidegate-coordinator" in told and "--force-conflicts" in told
    run(plane, "tidegate", *INSTALL, "--force-conflicts")
    deploy = json.loads(kubectl(plane, "get", "deploy", "tidegate-coordinator", "-n", SYSTEM_NAMESPACE, "-o", "json"))
    assert deploy["spec"]["replicas"] == 1


def test_a_version_that_is_no_neighbour_is_refused(plane):
    kubectl(plane, "annotate", "ns", SYSTEM_NAMESPACE, "--overwrite", "tidegate.dev/version=0.9.0")
    told = run(plane, "tidegate", *INSTALL, code=3).stderr
    assert "refused: 0.9.0 is installed and this command line is 0.1.0" in told
    kubectl(plane, "annotate", "ns", SYSTEM_NAMESPACE, "--overwrite", "tidegate.dev/version=0.1.0")


def test_a_gate_in_a_template_refuses_its_removal(plane):
    hook = {"preStop": {"httpGet": {"path": "/gate/app", "port": 15299}}}
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "app", "image": "x", "lifecycle": hook}]},
    }
    spec = {"replicas": 0, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    web = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}
    kubectl(plane, "create", "-f", "-", text=json.dumps(web))
    told = run(plane, "tidegate", "uninstall", "--yes", code=3).stderr
    assert "refused: deployment/default/web has a gate" in told
    assert len(json.loads(kubectl(plane, "get", "ds", "-n", SYSTEM_NAMESPACE, "-o", "json"))["items"]) == 2
    kubectl(plane, "delete", "deploy", "web")


def test_a_removal_that_is_cut_short_is_finished_by_the_next_and_leaves_nothing(plane):
    kubectl(plane, "delete", "ds", "tidegate-agent", "-n", SYSTEM_NAMESPACE)
    kubectl(plane, "annotate", "node", NODE, "tidegate.dev/vouched={}")
    made = run(plane, "tidegate", "install", "--remove", "--yes", "-o", "json", "--timeout", "100s")
    document = json.loads(made.stdout)
    assert document["left"] == [] and f"node/{NODE}: tidegate.dev/vouched" in document["staying"]
    assert "daemonset.apps/tidegate-sweep takes the table inet tidegate off every node" in made.stderr
    # What Kubernetes keeps for the name of the role lives in the namespace, and went with it.
    assert ours(plane) == []
    assert "nothing is installed" in run(plane, "tidegate", "uninstall", "--yes").stderr
