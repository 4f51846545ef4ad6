"""What a drain will ask of the API server, asked about beforehand: who may cut but not delete must not cut."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from tidegate.kube.api import Api, JsonObject, Resource
from tidegate.kube.errors import ApiError
from tidegate.model.names import SYSTEM_NAMESPACE

REVIEWS = Resource("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", False)


@dataclass(frozen=True, slots=True)
class Deed:
    """One verb on one resource (``pods`` or ``pods/proxy``); ``namespace`` "" is all of them."""

    verb: str
    resource: str
    namespace: str
    group: str = ""

    def __str__(self) -> str:
        qualified = f"{self.resource}.{self.group}" if self.group else self.resource
        return f"{self.verb} {qualified} {f'in namespace {self.namespace}' if self.namespace else 'cluster-wide'}"


def deeds(namespace: str, is_witnessed: bool) -> Iterator[Deed]:
    """What a drain in ``namespace`` does from the cut on. What its plan reads has been read by then."""
    for verb in ("watch", "patch", "delete"):
        yield Deed(verb, "pods", namespace)
    yield Deed("patch", "services", namespace)
    if is_witnessed:
        yield Deed("create", "pods/proxy", SYSTEM_NAMESPACE)
        return
    yield Deed("list", "services", "")
    yield Deed("list", "nodes", "")


async def lacking(api: Api, namespace: str, is_witnessed: bool) -> tuple[str, ...]:
    """The deeds these credentials may not do, as sentences. A server that does not say is taken at its word later."""
    asked = list(deeds(namespace, is_witnessed))
    answers = await asyncio.gather(*(_is_allowed(api, deed) for deed in asked))
    denied = [deed for deed, is_allowed in zip(asked, answers, strict=True) if not is_allowed]
    return tuple(f"these credentials may not {deed}" for deed in denied)


async def _is_allowed(api: Api, deed: Deed) -> bool:
    resource, _, subresource = deed.resource.partition("/")
    wanted = {"verb": deed.verb, "group": deed.group, "resource": resource, "namespace": deed.namespace}
    review: JsonObject = {
        "apiVersion": REVIEWS.api_version,
        "kind": REVIEWS.kind,
        "spec": {"resourceAttributes": {**wanted, "subresource": subresource}},
    }
    try:
        answer = await api.create(REVIEWS, review)
    except ApiError:
        return True
    return bool((answer.get("status") or {}).get("allowed", True))
