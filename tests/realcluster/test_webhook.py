"""The webhook judged by a real API server: asked by it, with the operator's own rights, down, slow, and made anew.

A control plane of its own with nothing but the installation; its controllers make pods, and no kubelet runs them. The
one thing that is not as installed is the address: there is no data plane here, so the configuration names a URL.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from tests.realcluster import control_plane

from tidegate.agent.roles import WEBHOOK_SECRET
from tidegate.kube.api import PODS, SECRETS, Selection
from tidegate.kube.connect import open_cluster
from tidegate.kube.errors import ApiError
from tidegate.kube.exchange import whole
from tidegate.kube.kubeconfig import Cluster
from tidegate.model import pod as pod_noun
from tidegate.model.names import OPERATOR, SYSTEM_NAMESPACE, UNGATED, WEBHOOK
from tidegate.operator import webhook as server
from tidegate.operator import webhook_certificates as certificates
from tidegate.operator.webhook import Webhook
from tidegate.operator.webhook_settings import WebhookSettings

pytestmark = pytest.mark.realcluster
BIN = Path(sys.executable).parent
SHOP, STRICT, OTHER = "shop", "strict", "other"
SEALED = {
    "allowPrivilegeEscalation": False, "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}  # fmt: skip


def kubectl(plane, *words, text="", code=0):
    environment = {**os.environ, "KUBECONFIG": str(plane.kubeconfig), "PATH": f"{BIN}:{os.environ['PATH']}"}
    ran = subprocess.run(["kubectl", *words], input=text, capture_output=True, text=True, env=environment, timeout=90)
    assert ran.returncode == code, (words, ran.stdout, ran.stderr)
    return ran


def tidegate(plane, *words):
    environment = {**os.environ, "KUBECONFIG": str(plane.kubeconfig)}
    command = [sys.executable, "-m", "tidegate", *words]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=90)
    assert ran.returncode == 0, (words, ran.stdout, ran.stderr)
    return ran.stdout


SIDECAR = "/sidecar"


class WithAnother(Webhook):
    """On the same port another webhook, which adds a container where there is none of its name."""

    async def exchange(self, request):
        if request.path != SIDECAR:
            return await super().exchange(request)
        request.caller.vouch()
        asked = json.loads(request.body)["request"]
        response = {"uid": asked["uid"], "allowed": True}
        if not [one for one in asked["object"]["spec"]["containers"] if one["name"] == "mesh"]:
            container = {"name": "mesh", "image": "x", "securityContext": SEALED}
            patch = [{"op": "add", "path": "/spec/containers/-", "value": container}]
            response |= {"patchType": "JSONPatch", "patch": base64.b64encode(json.dumps(patch).encode()).decode()}
        document = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
        return whole(200, json.dumps(document).encode(), connection="close")


class Running:
    """The operator's webhook in a thread with a loop of its own, with the rights and the token of its account."""

    def __init__(self, plane, folder, port=0):
        token = kubectl(plane, "create", "token", OPERATOR, "-n", SYSTEM_NAMESPACE).stdout.strip()
        self.cluster = Cluster(plane.server, ca=plane.ca.certificate.read_bytes(), token=token)
        self.settings = WebhookSettings(str(folder), "127.0.0.1", port, "localhost")
        self.lines, self.hook = [], None
        self._stop, self._up = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live()), daemon=True)

    async def _live(self):
        async with open_cluster(self.cluster) as api:
            self.hook = WithAnother(api, self.settings, self.lines.append)
            running = asyncio.create_task(self.hook.run())
            while not self._stop.is_set():
                assert not running.done(), running.exception()
                if self.hook.is_ready:
                    self._up.set()
                await asyncio.sleep(0.02)  # realtime: a real server's thread
            await self.hook.leave()
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running

    def __enter__(self):
        self._thread.start()
        assert self._up.wait(15), self.lines
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(10)


@pytest.fixture(scope="module")
def plane(tmp_path_factory):
    binaries = control_plane.assets()
    if binaries is None:
        pytest.skip(f"KUBEBUILDER_ASSETS has no {', '.join(control_plane.NEEDED)}")
    with control_plane.running(tmp_path_factory.mktemp("webhook"), binaries) as one:
        printed = tidegate(one, "install", "--print", "--only", "operator,webhook")
        kubectl(one, "apply", "--server-side", "--field-manager", "tidegate", "-f", "-", text=printed)
        for name, labels in (
            (SHOP, ["tidegate.dev/gate=enabled"]),
            (STRICT, ["tidegate.dev/gate=enabled", "pod-security.kubernetes.io/enforce=restricted"]),
            (OTHER, []),
        ):
            kubectl(one, "create", "namespace", name)
            if labels:
                kubectl(one, "label", "namespace", name, *labels)
        kubectl(one, "label", "namespace", "kube-system", "tidegate.dev/gate=enabled")
        yield one


def configuration(plane):
    return json.loads(kubectl(plane, "get", "mutatingwebhookconfiguration", WEBHOOK, "-o", "json").stdout)


def point_at(plane, port):
    """API servers call ``port`` of this machine."""
    patch = []
    for index, one in enumerate(configuration(plane)["webhooks"]):
        where = one["clientConfig"]
        path = where["service"]["path"] if "service" in where else "/" + where["url"].split("/", 3)[3]
        client = {"url": f"https://localhost:{port}{path}", "caBundle": where.get("caBundle", "")}
        patch.append({"op": "replace", "path": f"/webhooks/{index}/clientConfig", "value": client})
    kubectl(plane, "patch", "mutatingwebhookconfiguration", WEBHOOK, "--type=json", "-p", json.dumps(patch))


@pytest.fixture
def running(plane, tmp_path):
    """The webhook, and an API server that has been seen to call it."""
    with Running(plane, tmp_path / "tls") as one:
        point_at(plane, one.hook.port)
        until_called(plane)
        yield one


def until_called(plane):
    """An API server learns of a configuration by a watch."""
    deadline = time.monotonic() + 20
    while True:
        made = create(plane, pod("probe"), "--dry-run=server")
        if hooks(made):
            return
        assert time.monotonic() < deadline, "the webhook is never called"
        time.sleep(0.1)  # realtime: a real API server


def pod(name, hook=None, namespace=SHOP, labels=None, **spec):
    container = {"name": "app", "image": "x", "securityContext": SEALED}
    container |= {"lifecycle": {"preStop": hook}} if hook else {}
    metadata = {"name": name, "namespace": namespace, "labels": {"app": name, **(labels or {})}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container], **spec}}


def create(plane, one, *more):
    return json.loads(kubectl(plane, "create", "-o", "json", "-f", "-", *more, text=json.dumps(one)).stdout)


def hooks(one):
    return [each["lifecycle"]["preStop"] for each in one["spec"]["containers"] if "lifecycle" in each]


GATE = {"httpGet": {"path": "/gate/app", "port": 15299, "scheme": "HTTP"}}


def deployment(name, namespace=SHOP, kind="Deployment"):
    template = {"metadata": {"labels": {"app": name}}, "spec": pod(name)["spec"]}
    spec = {"replicas": 3, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def pods_of(plane, name, count, namespace=SHOP):
    deadline = time.monotonic() + 20
    while True:
        words = ("get", "pods", "-n", namespace, "-l", f"app={name}", "-o", "json")
        found = json.loads(kubectl(plane, *words).stdout)["items"]
        if len(found) >= count or time.monotonic() > deadline:
            assert len(found) == count
            return found
        time.sleep(0.1)  # realtime: real controllers


def test_the_bundle_is_the_operators_field_and_installing_again_leaves_it(plane, tmp_path):
    with Running(plane, tmp_path / "tls") as running:
        while not (told := {one["clientConfig"].get("caBundle") for one in configuration(plane)["webhooks"]}) - {None}:
            time.sleep(0.1)  # realtime: a real API server
        assert len(told) == 1
        printed = tidegate(plane, "install", "--print", "--only", "webhook")
        kubectl(plane, "apply", "--server-side", "--field-manager", "tidegate", "-f", "-", text=printed)
        assert {one["clientConfig"].get("caBundle") for one in configuration(plane)["webhooks"]} == told
        assert not [line for line in running.lines if "forbidden" in line], running.lines


def test_a_deployments_pods_come_out_gated_and_strict_pod_security_takes_them(plane, running):
    for namespace in (SHOP, STRICT):
        create(plane, deployment("web", namespace))
        for one in pods_of(plane, "web", 3, namespace):
            assert hooks(one) == [GATE] and one["spec"]["terminationGracePeriodSeconds"] == 60
            assert pod_noun.decode(one).is_gated
    assert running.hook.outcomes["gated"] >= 6


def test_who_did_not_opt_in_is_not_touched(plane, running):
    before = sum(running.hook.outcomes.values())
    for one in (
        pod("elsewhere", namespace=OTHER),
        pod("out", labels={"tidegate.dev/gate": "disabled"}),
        pod("system", namespace="kube-system"),
    ):
        kubectl(plane, "get", "serviceaccount", "-n", one["metadata"]["namespace"])
        made = create(plane, one, "--dry-run=server")
        assert hooks(made) == [] and made["spec"]["terminationGracePeriodSeconds"] == 30
    assert sum(running.hook.outcomes.values()) == before, "and nobody was asked"
    assert hooks(create(plane, pod("in", namespace=OTHER, labels={"tidegate.dev/gate": "enabled"}), "--dry-run=server"))


def test_a_dry_run_shows_the_gate_and_leaves_nothing(plane, running):
    assert hooks(create(plane, pod("dry"), "--dry-run=server")) == [GATE]
    kubectl(plane, "get", "pod", "dry", "-n", SHOP, code=1)


def test_kubectl_shows_the_warning_and_the_pod_says_why(plane, running):
    own = {"exec": {"command": ["nginx", "-s", "quit"]}}
    ran = kubectl(plane, "create", "-f", "-", text=json.dumps(pod("own", own)))
    assert "Warning: tidegate: pod own: container app keeps a preStop hook of its own and has no gate" in ran.stderr
    made = json.loads(kubectl(plane, "get", "pod", "own", "-n", SHOP, "-o", "json").stdout)
    assert made["metadata"]["annotations"][UNGATED].startswith("container app keeps a preStop hook of its own")
    assert hooks(made) == [own]


def test_a_pod_on_its_nodes_network_is_taken_in_the_form_that_names_the_loopback(plane, running):
    one = pod("host", hostNetwork=True)
    one["spec"]["containers"][0]["ports"] = [{"containerPort": 8080}]
    tokens = []
    for _ in range(2):
        made = create(plane, one, "--dry-run=server")
        [hook] = hooks(made)
        token = made["metadata"]["annotations"]["tidegate.dev/gate-token"]
        assert hook["httpGet"]["host"] == "127.0.0.1"
        assert hook["httpGet"]["httpHeaders"] == [{"name": "X-Tidegate-Gate", "value": token}]
        tokens.append(token)
    assert len(set(tokens)) == 2


def test_a_jobs_pods_are_marked_and_end_as_they_would(plane, running):
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once", "namespace": SHOP}}
    spec = {**pod("once")["spec"], "restartPolicy": "Never"}
    create(plane, {**job, "spec": {"template": {"metadata": {"labels": {"app": "once"}}, "spec": spec}}})
    [one] = pods_of(plane, "once", 1)
    assert hooks(one) == [] and one["metadata"]["annotations"][UNGATED] == "a Job's pod ends by itself"


def test_a_sleep_is_replaced_where_the_namespace_asks(plane, running):
    sleep = {"sleep": {"seconds": 5}}
    assert hooks(create(plane, pod("sleeper", sleep), "--dry-run=server")) == [sleep]
    kubectl(plane, "label", "namespace", SHOP, "tidegate.dev/replace-sleep=true")
    deadline = time.monotonic() + 10
    while hooks(create(plane, pod("sleeper", sleep), "--dry-run=server")) != [GATE]:
        assert time.monotonic() < deadline
        time.sleep(0.1)  # realtime: a namespace's labels reach the API server by a watch
    kubectl(plane, "label", "namespace", SHOP, "tidegate.dev/replace-sleep-")


def test_a_container_that_another_webhook_adds_afterwards_is_gated_too(plane, running):
    """``zz`` is asked after ``tidegate``; what it changes has ours asked again (reinvocationPolicy IfNeeded)."""
    told = configuration(plane)["webhooks"][0]["clientConfig"]
    hook = {
        "name": "sidecar.example.org", "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "clientConfig": {**told, "url": f"https://localhost:{running.hook.port}{SIDECAR}"},
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
        "objectSelector": {"matchLabels": {"sidecar": "yes"}},
    }  # fmt: skip
    kind = "MutatingWebhookConfiguration"
    made = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "zz"}}
    create(plane, {**made, "webhooks": [hook]})
    deadline = time.monotonic() + 20
    while (
        len((one := create(plane, pod("mesh", labels={"sidecar": "yes"}), "--dry-run=server"))["spec"]["containers"])
        < 2
    ):
        assert time.monotonic() < deadline
        time.sleep(0.1)  # realtime: an API server learns of a configuration by a watch
    kubectl(plane, "delete", "mutatingwebhookconfiguration", "zz")
    assert [each["httpGet"]["path"] for each in hooks(one)] == ["/gate/app", "/gate/mesh"]


def test_down_pods_are_created_ungated_and_listed(plane, tmp_path):
    """S61: nobody listens, then somebody who never answers."""
    with Running(plane, tmp_path / "tls") as one:
        point_at(plane, one.hook.port)
        until_called(plane)
        port = one.hook.port
    began = time.monotonic()
    create(plane, deployment("bare"))
    assert [hooks(each) for each in pods_of(plane, "bare", 3)] == [[], [], []]
    assert time.monotonic() - began < 10
    status = json.loads(tidegate(plane, "status", "deploy/bare", "-n", SHOP, "-o", "json"))
    assert status["workloads"][0]["ungated"] == 3
    told = tidegate(plane, "status", "deploy/bare", "-n", SHOP)
    assert "3 pods have no gate" in told and "kubectl -n shop rollout restart deployment/bare" in told, told

    silent = threading.Event()

    async def hold():
        listening = await asyncio.start_server(lambda reader, writer: asyncio.sleep(30), "127.0.0.1", port)
        async with listening:
            while not silent.is_set():
                await asyncio.sleep(0.05)  # realtime: a real server's thread

    thread = threading.Thread(target=lambda: asyncio.run(hold()), daemon=True)
    thread.start()
    began = time.monotonic()
    assert hooks(create(plane, pod("patient"))) == []
    assert time.monotonic() - began < 4, "the API server waits 2 s and goes on"
    silent.set()
    thread.join(5)


async def test_made_anew_while_pods_are_created_none_is_left_ungated(plane, running, monkeypatch):
    """S62: authority, leaf and bundle twice over, with pods created without a pause."""
    monkeypatch.setattr(certificates, "SETTLE", timedelta(seconds=2))
    monkeypatch.setattr(certificates, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(server, "REFRESH_SECONDS", 0.1)
    admin = Cluster(plane.server, ca=plane.ca.certificate.read_bytes(), token=control_plane.TOKEN)
    async with open_cluster(admin) as api:
        done, made = asyncio.Event(), []

        async def creating():
            while not done.is_set():
                one = pod(f"s62-{len(made)}", labels={"s62": "yes"})
                made.append(one["metadata"]["name"])
                await api.create(PODS, one)

        await asyncio.sleep(15)  # realtime: until the keeper looks again, with the shorter times
        task = asyncio.create_task(creating())
        leaves = [await _leaf(api)]
        for _ in range(2):
            await api.delete(SECRETS, WEBHOOK_SECRET, SYSTEM_NAMESPACE)
            await asyncio.sleep(6)  # realtime: Secret, bundle, settling, leaf
            leaves.append(await _leaf(api))
        done.set()
        await task
        found = (await api.list(PODS, Selection(SHOP, "s62=yes"))).items
    assert len(set(leaves)) == 3 and None not in leaves
    assert running.lines.count("webhook: the certificate was renewed") == 2, running.lines
    bare = [one["metadata"]["name"] for one in found if not hooks(one)]
    print(f"{len(found)} pods created while certificates were made anew twice, {len(bare)} of them without a gate")
    assert len(found) == len(made) > 100 and bare == []


async def _leaf(api):
    with contextlib.suppress(ApiError):
        return (await api.get(SECRETS, WEBHOOK_SECRET, SYSTEM_NAMESPACE))["data"]["tls.crt"]
