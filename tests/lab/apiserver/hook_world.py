"""A webhook server on the virtual network, behind a Service of the lab, and the configurations that name it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tidegate.kube import wire
from tidegate.kube.exchange import Request, Response, whole

from .api_world import SERVICE, World

MUTATING = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
VALIDATING = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
ADDRESS, PORT = "127.17.1.9", 9443

Say = Callable[[dict[str, Any]], dict[str, Any]]
"""From a request to what its response says beside the uid."""


def patch(*operations: dict[str, Any]) -> dict[str, Any]:
    """An answer that allows, and changes."""
    encoded = base64.b64encode(json.dumps(list(operations)).encode()).decode()
    return {"allowed": True, "patchType": "JSONPatch", "patch": encoded}


def label(name: str, value: str) -> Say:
    """Gives the object a label, which must have some."""
    return lambda request: patch({"op": "add", "path": f"/metadata/labels/{name}", "value": value})


@dataclass
class Hooks:
    """Answers at each path as it was told to; everything it was asked, in order."""

    answers: dict[str, Say] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    status: int = 200

    async def exchange(self, request: Request) -> Response:
        review = json.loads(request.body)
        self.asked.append((request.path, review["request"]))
        said = self.answers.get(request.path, lambda _: {"allowed": True})(review["request"])
        response = {"uid": review["request"]["uid"], **said}
        answer = {"kind": "AdmissionReview", "apiVersion": review["apiVersion"], "response": response}
        return whole(self.status, json.dumps(answer).encode())

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]

    async def serve(self, world: World, port: int = PORT) -> wire.Server:
        """At the one endpoint of the Service ``hooks``."""
        service = {"metadata": {"name": "hooks"}, "spec": {"ports": [{"port": 443, "targetPort": port}]}}
        await world.create(SERVICE, service)
        await world.create(
            SLICES,
            {
                "metadata": {"name": "hooks-1", "labels": {"kubernetes.io/service-name": "hooks"}},
                "addressType": "IPv4",
                "ports": [{"port": port}],
                "endpoints": [{"addresses": [ADDRESS], "conditions": {"ready": True}}],
            },
        )
        return await wire.serve(self.exchange, ADDRESS, port)


def rule(*resources: str, operations: tuple[str, ...] = ("CREATE",), **more: Any) -> dict[str, Any]:
    return {
        "apiGroups": ["*"],
        "apiVersions": ["*"],
        "operations": list(operations),
        "resources": list(resources or ("pods",)),
        **more,
    }


def hook(path: str = "/", name: str = "h.example.com", **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "rules": [rule()],
        "clientConfig": {"service": {"name": "hooks", "namespace": "default", "path": path}},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        **more,
    }


def configuration(kind: str, name: str, *hooks: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": f"{kind}WebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": list(hooks),
    }


async def mutating(world: World, *hooks: dict[str, Any], name: str = "m") -> None:
    await world.create(MUTATING, configuration("Mutating", name, *hooks))


async def validating(world: World, *hooks: dict[str, Any], name: str = "v") -> None:
    await world.create(VALIDATING, configuration("Validating", name, *hooks))
