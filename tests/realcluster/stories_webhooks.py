"""Stories of admission webhooks: what they are asked, and what a client is answered when they deny, change or fail."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tests.realcluster.certificates import authority, signed
from tests.realcluster.objects import configmap, deployment, pod
from tests.realcluster.twin import JSON_PATCH, MERGE, Side

from tidegate.kube import wire
from tidegate.kube.exchange import Request, Response, whole

GROUP = "/apis/admissionregistration.k8s.io/v1"
KINDS = {"Mutating": f"{GROUP}/mutatingwebhookconfigurations", "Validating": f"{GROUP}/validatingwebhookconfigurations"}
Say = Callable[[dict[str, Any]], dict[str, Any]]


@cache
def _ground() -> tuple[int, ssl.SSLContext, str]:
    """A port that both sides' webhooks are at, in turn, what they show there, and whom to trust for it."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="webhooks-"))
    ca = authority(folder, "ca")
    pair = signed(ca, "hooks", "/CN=hooks", "subjectAltName=IP:127.0.0.1\n")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    return port, context, base64.b64encode(ca.certificate.read_bytes()).decode()


def patch(*operations: dict[str, Any]) -> dict[str, Any]:
    encoded = base64.b64encode(json.dumps(list(operations)).encode()).decode()
    return {"allowed": True, "patchType": "JSONPatch", "patch": encoded}


@dataclass
class Hooks:
    """Answers by path; what it was asked about objects of the story, in order."""

    answers: dict[str, Say] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    raw: dict[str, tuple[int, bytes]] = field(default_factory=dict)

    async def exchange(self, request: Request) -> Response:
        review = json.loads(request.body)
        self.asked.append((request.path, review["request"]))
        if request.path in self.raw:
            return whole(*self.raw[request.path])
        said = self.answers.get(request.path, lambda _: {"allowed": True})(review["request"])
        response = {"uid": review["request"]["uid"], **said}
        answer = {"kind": "AdmissionReview", "apiVersion": review["apiVersion"], "response": response}
        return whole(200, json.dumps(answer).encode())


@asynccontextmanager
async def serving(hooks: Hooks) -> AsyncIterator[None]:
    port, context, _ = _ground()
    server = await wire.serve(hooks.exchange, "127.0.0.1", port, tls=context)
    try:
        yield
    finally:
        await server.close()


def rule(*resources: str, operations: tuple[str, ...] = ("*",)) -> dict[str, Any]:
    return {"apiGroups": ["*"], "apiVersions": ["*"], "operations": list(operations), "resources": list(resources)}


def hook(side: Side, path: str, name: str = "h.example.com", **more: Any) -> dict[str, Any]:
    port, _, bundle = _ground()
    return {
        "name": name,
        "rules": [rule("configmaps")],
        "clientConfig": {"url": f"https://127.0.0.1:{port}{path}", "caBundle": bundle},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": side.namespace}},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        **more,
    }


@asynccontextmanager
async def configured(side: Side, kind: str, *hooks: dict[str, Any], name: str = "") -> AsyncIterator[None]:
    """While the server has this configuration, and knows it."""
    name = name or f"{side.namespace}-{kind.lower()}"
    _, _, bundle = _ground()
    known: list[str] = []

    async def exchange(request: Request) -> Response:
        known.append(request.path)
        uid = json.loads(request.body)["request"]["uid"]
        answer = {
            "kind": "AdmissionReview",
            "apiVersion": "admission.k8s.io/v1",
            "response": {"uid": uid, "allowed": True},
        }
        return whole(200, json.dumps(answer).encode())

    context = _ground()[1]
    server = await wire.serve(exchange, "127.0.0.1", 0, tls=context)
    told = hook(side, "/", "known.example.com", rules=[rule("secrets")], sideEffects="None", timeoutSeconds=1)
    told["clientConfig"] = {"url": f"https://127.0.0.1:{server.port}/known", "caBundle": bundle}
    body = {"kind": f"{kind}WebhookConfiguration", "metadata": {"name": name}, "webhooks": [*hooks, told]}
    made = await side.quietly("POST", KINDS[kind], {"apiVersion": "admissionregistration.k8s.io/v1", **body})
    assert made.status == 201, made.body
    try:
        for _ in range(100):  # the real server reads its own copy
            await side.quietly("POST", "secrets", {"metadata": {"name": "known"}}, dryRun="All")
            if known:
                break
            await asyncio.sleep(0.05)
        yield
    finally:
        await side.quietly("DELETE", f"{KINDS[kind]}/{name}")
        for _ in range(100):
            known.clear()
            await side.quietly("POST", "secrets", {"metadata": {"name": "known"}}, dryRun="All")
            if not known:
                break
            await asyncio.sleep(0.05)
        await server.close()


def tell(side: Side, hooks: Hooks) -> None:
    """What was asked since; who asks and with what certificate is each side's own."""
    for path, request in hooks.asked:
        shown = {key: value for key, value in request.items() if key not in ("uid", "userInfo")}
        drawn = (request["object"] or {}).get("metadata", {}).get("generateName") and request.get("name")
        if drawn:
            shown = json.loads(json.dumps(shown).replace(drawn, "<drawn>"))
        side.tell(f"asked at {path}", shown)
    hooks.asked.clear()


async def questions(side: Side) -> None:
    """What a webhook is asked about writes of every kind."""
    hooks = Hooks()
    everything = [
        rule("configmaps", "pods", "deployments", "*/status", "*/scale", "pods/eviction", "pods/binding", "pods/exec")
    ]
    async with (
        serving(hooks),
        configured(side, "Mutating", hook(side, "/m", rules=everything)),
        configured(side, "Validating", hook(side, "/v", rules=everything)),
    ):
        await side.quietly("POST", "configmaps", configmap("m"))
        tell(side, hooks)
        await side.quietly("POST", "configmaps", {"metadata": {"generateName": "g-"}}, fieldManager="me", dryRun="All")
        tell(side, hooks)
        await side.quietly("PATCH", "configmaps/m", {"data": {"b": "2"}}, kind=MERGE)
        tell(side, hooks)
        await side.quietly("PATCH", "configmaps/m", {"data": {"b": "2"}}, kind=MERGE)
        tell(side, hooks)
        await side.quietly("PUT", "configmaps/m", configmap("m"), fieldManager="me")
        tell(side, hooks)
        await side.quietly("DELETE", "configmaps/m", {"kind": "DeleteOptions", "propagationPolicy": "Background"})
        tell(side, hooks)
        await side.quietly("POST", "pods", pod("p"))
        tell(side, hooks)
        await side.quietly("GET", "pods/p/exec", command="ls", stdout="true", container="app")
        tell(side, hooks)
        await side.quietly("POST", "pods/p/binding", {"metadata": {"name": "p"}, "target": {"name": "n"}})
        tell(side, hooks)
        await side.quietly("PATCH", "pods/p/status", {"status": {"phase": "Running"}}, kind=MERGE)
        tell(side, hooks)
        await side.quietly("POST", "pods/p/eviction", {"metadata": {"name": "p"}})
        tell(side, hooks)
        await side.quietly("POST", "apps/deployments", deployment("d"))
        tell(side, hooks)
        await side.quietly("PATCH", "apps/deployments/d/scale", {"spec": {"replicas": 5}}, kind=MERGE)
        tell(side, hooks)


async def denials(side: Side) -> None:
    """Noes of every form, and what of them a client is told."""
    said: dict[str, Any] = {}
    hooks = Hooks({"/m": lambda _: said, "/v": lambda _: said})
    forms: tuple[dict[str, Any], ...] = (
        {},
        {"status": {"message": "no gate"}},
        {"status": {"message": "no gate", "code": 422, "reason": "Invalid", "details": {"name": "x", "kind": "y"}}},
        {"status": {"reason": "Forbidden", "code": 403}},
        {"status": {"message": "fine", "code": 200, "status": "Success"}},
        {"status": {"message": "no"}, "warnings": ['a "quoted" one']},
    )
    for kind, path in (("Mutating", "/m"), ("Validating", "/v")):
        async with serving(hooks), configured(side, kind, hook(side, path)):
            for form in forms:
                said.clear()
                said.update(form, allowed=False)
                await side.ask("POST", "configmaps", configmap("m"))
            said.clear()
            said.update(allowed=True, warnings=["only said"])
            await side.ask("POST", "configmaps", configmap(f"m-{kind.lower()}"))


async def failures(side: Side) -> None:
    """Webhooks that cannot be asked, or give no answer worth the name."""
    port = _ground()[0]
    hooks = Hooks(
        {
            "/uid": lambda _: {"uid": "other", "allowed": True},
            "/half": lambda _: {"allowed": True, "patchType": "JSONPatch"},
            "/untyped": lambda _: {"allowed": True, "patch": "W10="},
            "/merge": lambda _: {**patch({"op": "add", "path": "/data/x", "value": "1"}), "patchType": "Merge"},
            "/away": lambda _: patch({"op": "remove", "path": "/metadata/nothing"}),
            "/deep": lambda _: patch({"op": "add", "path": "/metadata/nothing/more", "value": 1}),
            "/other": lambda _: patch({"op": "replace", "path": "/data/nothing", "value": "x"}),
            "/test": lambda _: patch({"op": "test", "path": "/kind", "value": "x"}),
            "/kind": lambda _: patch({"op": "replace", "path": "/data", "value": "text"}),
        },
        raw={
            "/500": (500, b"broken"),
            "/404": (404, b"nothing"),
            "/403": (403, b"not you"),
            "/empty": (200, b"{}"),
            "/bare": (200, b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"}'),
        },
    )
    async with serving(hooks):
        for path in (*hooks.answers, *hooks.raw):
            async with configured(side, "Mutating", hook(side, path)):
                await side.ask("POST", "configmaps", configmap("m"))
        async with configured(side, "Validating", hook(side, "/untyped")):
            await side.ask("POST", "configmaps", configmap("m"))
        async with configured(side, "Mutating", hook(side, "/500", failurePolicy="Ignore")):
            await side.ask("POST", "configmaps", configmap("ignored"))
        away = hook(side, "/p")
        away["clientConfig"] = {"service": {"namespace": side.namespace, "name": "none", "path": "/p"}}
        async with configured(side, "Validating", away):
            await side.ask("POST", "configmaps", configmap("m"))
        service = {"metadata": {"name": "bare"}, "spec": {"ports": [{"port": 8443}]}}
        await side.quietly("POST", "services", service)
        away["clientConfig"]["service"] |= {"name": "bare", "port": 443}
        async with configured(side, "Validating", away):
            await side.ask("POST", "configmaps", configmap("m"))
        untrusted = hook(side, "/x")
        del untrusted["clientConfig"]["caBundle"]
        async with configured(side, "Validating", untrusted):
            await side.ask("POST", "configmaps", configmap("m"))
    async with configured(side, "Validating", hook(side, f"/gone-{port}", timeoutSeconds=2)):
        await side.ask("POST", "configmaps", configmap("m"))


async def changes(side: Side) -> None:
    """What mutating webhooks make of an object, in order, and again."""

    def labelled(name: str) -> Say:
        def say(request: dict[str, Any]) -> dict[str, Any]:
            labels = {**(request["object"]["metadata"].get("labels") or {}), name: "1"}
            return patch({"op": "add", "path": "/metadata/labels", "value": labels})

        return say

    sidecar = {"name": "gate", "image": "gate:1"}
    hooks = Hooks(
        {
            "/a": labelled("a"),
            "/b": labelled("b"),
            "/pod": lambda _: patch({"op": "add", "path": "/spec/containers/-", "value": sidecar}),
            "/wild": lambda _: patch({"op": "add", "path": "/unknown", "value": {"x": 1}}),
            "/delete": lambda _: patch({"op": "add", "path": "/x", "value": 1}),
        }
    )
    again = {"reinvocationPolicy": "IfNeeded"}
    async with (
        serving(hooks),
        configured(side, "Mutating", hook(side, "/b", **again), hook(side, "/see", "s.example.com"), name="2"),
        configured(side, "Mutating", hook(side, "/a", **again), name="1"),
    ):
        await side.ask("POST", "configmaps", configmap("m"))
        side.tell("order", [path for path, _ in hooks.asked])
        hooks.asked.clear()
    async with serving(hooks), configured(side, "Mutating", hook(side, "/pod", rules=[rule("pods")])):
        await side.ask("POST", "pods", pod("p"))
    async with serving(hooks), configured(side, "Mutating", hook(side, "/wild")):
        await side.ask("POST", "configmaps", configmap("wild"))
    async with (
        serving(hooks),
        configured(side, "Mutating", hook(side, "/delete", rules=[rule("configmaps", operations=("DELETE",))])),
    ):
        await side.ask("DELETE", "configmaps/wild")


async def configurations(side: Side) -> None:
    """Configurations: what is made of them, what is refused, and what kubectl prints."""
    for kind, path in KINDS.items():
        name = f"{side.namespace}-c"
        good = hook(side, "/x", failurePolicy="Ignore")
        good["clientConfig"] = {"service": {"namespace": side.namespace, "name": "s"}}
        head = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": f"{kind}WebhookConfiguration"}
        await side.ask("POST", path, {**head, "metadata": {"name": name}, "webhooks": [good]})
        table = "application/json;as=Table;v=v1;g=meta.k8s.io"
        answer = await side.quietly("GET", f"{path}/{name}", accept=table)
        side.tell("printed", [row["cells"] for row in answer.body["rows"]])
        change = [{"op": "replace", "path": "/webhooks/0/timeoutSeconds", "value": 3}]
        await side.ask("PATCH", f"{path}/{name}", change, kind=JSON_PATCH)
        for wrong in (
            {"name": "short"},
            {"name": ""},
            {"sideEffects": "Some"},
            {"sideEffects": None},
            {"timeoutSeconds": 31},
            {"timeoutSeconds": 0},
            {"failurePolicy": "Maybe"},
            {"matchPolicy": "Some"},
            {"admissionReviewVersions": []},
            {"admissionReviewVersions": ["v2"]},
            {"admissionReviewVersions": ["v1", "v1"]},
            {"clientConfig": {}},
            {"clientConfig": {"url": "http://example.com"}},
            {"clientConfig": {"url": "https://user:word@example.com/?q=1#here"}},
            {"clientConfig": {"service": {"name": "s", "namespace": ""}}},
            {"clientConfig": {"service": {"name": "s", "namespace": "n", "path": "x//y", "port": 0}}},
            {"rules": [{}]},
            {"rules": [rule("*", "pods")]},
            {"rules": [rule("pods/*", "pods/status", "*/*")]},
            {"rules": [rule("pods", operations=("*", "READ"))]},
            {"rules": [{**rule("pods"), "scope": "All", "apiVersions": ["*", "v1"]}]},
            {"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "Has"}]}},
            {"matchConditions": [{"name": "", "expression": ""}]},
            {"matchConditions": [{"name": "c", "expression": "1"}]},
            {"matchConditions": [{"name": "c", "expression": "true"}, {"name": "c", "expression": "true"}]},
        ):
            bad = {key: value for key, value in {**good, **wrong}.items() if value is not None}
            await side.ask("POST", path, {**head, "metadata": {"name": f"{name}-bad"}, "webhooks": [bad]})
        await side.ask("POST", path, {**head, "metadata": {"name": f"{name}-bad"}, "webhooks": [good, good]})
        await side.ask("DELETE", f"{path}/{name}")


STORIES = (questions, denials, failures, changes, configurations)
