"""What each verb asks of the API server, in one table, so that it can be asked about beforehand.

Who may cut but not delete must not begin to drain. ``deeds_of`` is the table; ``lacking`` asks about what a verb does
from its first write on (what its plan reads has been read by then); ``review`` asks about anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tidegate.kube.api import Api, JsonObject, Resource
from tidegate.kube.errors import ApiError
from tidegate.model.names import SYSTEM_NAMESPACE
from tidegate.observers.asking import ACCOUNT

REVIEWS = Resource("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", False)


@dataclass(frozen=True, slots=True)
class Deed:
    """One verb on one resource (``pods`` or ``pods/proxy``); ``namespace`` "" is all of them."""

    verb: str
    resource: str
    namespace: str
    group: str = ""
    name: str = ""
    """Of one object; "" is all of them."""

    def __str__(self) -> str:
        qualified = f"{self.resource}.{self.group}" if self.group else self.resource
        qualified += f" named {self.name}" if self.name else ""
        return f"{self.verb} {qualified} {f'in namespace {self.namespace}' if self.namespace else 'cluster-wide'}"


_OWN, _ALL, _SYSTEM = "own", "all", "system"
"""Where a deed is done: in the subject's namespace, in all of them (or on what has none), in Tidegate's own."""

_Row = tuple[str, str, str]
"""(verbs, resource.group/subresource and perhaps a name, where)."""

_LOOK: tuple[_Row, ...] = (
    ("get list watch", "pods", _OWN),
    ("get list watch", "services", _OWN),
    ("list", "endpointslices.discovery.k8s.io", _ALL),
    ("list", "nodes", _ALL),
    ("get list", "replicasets.apps", _OWN),
    ("get list", "deployments.apps", _OWN),
    ("get list", "statefulsets.apps", _OWN),
    ("get list", "daemonsets.apps", _OWN),
    ("get list", "jobs.batch", _OWN),
)
_ASK: tuple[_Row, ...] = (
    ("get", "leases.coordination.k8s.io", _SYSTEM),
    ("list", "pods", _SYSTEM),
    ("get create", "pods/proxy", _SYSTEM),
    ("create", f"serviceaccounts/token {ACCOUNT}", _SYSTEM),
)
"""How agents and the coordinator are asked: pods/proxy is a GET for one, a POST ("create") for the other; each with a
token of one account."""
_SETTLE: tuple[_Row, ...] = (("list", "services", _ALL),)
"""Without agents every Service that is not proxied the common way is looked for, and the time to settle waited."""
_GUARDS: tuple[_Row, ...] = (
    ("list", "poddisruptionbudgets.policy", _OWN),
    ("list", "networkpolicies.networking.k8s.io", _OWN),
    ("list", "horizontalpodautoscalers.autoscaling", _OWN),
)
_HOLD: tuple[_Row, ...] = (("patch", "pods", _OWN), ("patch", "services", _OWN))
_END: tuple[_Row, ...] = (("delete", "pods", _OWN),)
_WRITTEN: tuple[_Row, ...] = (
    ("get list create patch", "configmaps", _OWN),
    ("get list create patch", "releases.tidegate.dev", _OWN),
    ("patch", "releases.tidegate.dev/status", _OWN),
)
"""Where a release is written down: in one of the two, by what the cluster knows."""
_ROLLING: tuple[_Row, ...] = (
    *_WRITTEN,
    *_HOLD,
    *_END,
    ("patch", "deployments.apps", _OWN),
    ("patch", "replicasets.apps", _OWN),
)
_FAMILY: tuple[_Row, ...] = (
    *_ROLLING,
    ("create delete", "deployments.apps", _OWN),
    ("create delete", "services", _OWN),
    ("patch", "horizontalpodautoscalers.autoscaling", _OWN),
)
"""A Deployment for each revision, our own Services beside it, an autoscaler that goes with the traffic."""
_WRITES: dict[str, tuple[_Row, ...]] = {
    "status": (),
    "trace": (),
    "doctor": (),
    "verify": (),
    "cut": _HOLD,
    "isolate": _HOLD,
    "restore": (*_HOLD, *_END),
    "drain": (*_HOLD, *_END),
    "drain node": (*_HOLD, *_END, ("get patch", "nodes", _ALL)),
    "vouch": (("get patch", "nodes", _ALL),),
    "prepare": (
        *_HOLD,
        ("create delete", "services", _OWN),
        ("patch", "deployments.apps", _OWN),
        ("patch", "replicasets.apps", _OWN),
    ),
    "release rolling": _ROLLING,
    **dict.fromkeys(("release bluegreen", "release canary", "release rainbow"), _FAMILY),
}
_READS: dict[str, tuple[_Row, ...]] = {
    "trace": (("list watch", "events", _OWN), ("watch", "endpointslices.discovery.k8s.io", _OWN)),
    "doctor": (("list", "endpointslices.discovery.k8s.io", _SYSTEM),),
    **dict.fromkeys(
        ("release rolling", "release bluegreen", "release canary", "release rainbow"),
        (("list", "services", _SYSTEM), ("list", "endpointslices.discovery.k8s.io", _OWN)),
    ),
}

VERBS: tuple[str, ...] = tuple(_WRITES)
"""The verbs ``deeds_of`` knows, those that only read first."""


def deeds_of(verb: str, namespace: str, is_witnessed: bool = True) -> tuple[Deed, ...]:
    """Everything ``verb`` asks of the API server in ``namespace``, reads first. ``is_witnessed``: agents are asked.

    Raises ``KeyError`` for a verb that is not among ``VERBS``.
    """
    writes = _WRITES[verb]
    looks = () if verb == "vouch" else _LOOK
    guards = _GUARDS if writes and verb != "vouch" else ()
    rows = [*looks, *(_ASK if is_witnessed else _SETTLE), *guards, *_READS.get(verb, ()), *writes]
    return tuple(dict.fromkeys(deed for row in rows for deed in _deeds(row, namespace)))


def _deeds(row: _Row, namespace: str) -> Iterator[Deed]:
    verbs, asked, where = row
    resource, _, one = asked.partition(" ")
    name, _, subresource = resource.partition("/")
    plural, _, group = name.partition(".")
    space = {_OWN: namespace, _ALL: "", _SYSTEM: SYSTEM_NAMESPACE}[where]
    for verb in verbs.split():
        yield Deed(verb, f"{plural}/{subresource}" if subresource else plural, space, group, one)


def deeds(namespace: str, is_witnessed: bool, is_ending: bool = True) -> Iterator[Deed]:
    """What a drain in ``namespace`` does from the cut on. What its plan reads has been read by then. Who only cuts
    (not ``is_ending``) deletes nothing."""
    for verb in ("watch", "patch", "delete")[: 3 if is_ending else 2]:
        yield Deed(verb, "pods", namespace)
    yield Deed("patch", "services", namespace)
    if is_witnessed:
        yield Deed("create", "pods/proxy", SYSTEM_NAMESPACE)
        yield Deed("create", "serviceaccounts/token", SYSTEM_NAMESPACE, name=ACCOUNT)
        return
    yield Deed("list", "services", "")
    yield Deed("list", "nodes", "")


async def lacking(api: Api, namespace: str, is_witnessed: bool, is_ending: bool = True) -> tuple[str, ...]:
    """The deeds these credentials may not do, as sentences. A server that does not say is taken at its word later."""
    asked = list(deeds(namespace, is_witnessed, is_ending))
    answers = await asyncio.gather(*(_is_allowed(api, deed) for deed in asked))
    denied = [deed for deed, is_allowed in zip(asked, answers, strict=True) if not is_allowed]
    return tuple(f"these credentials may not {deed}" for deed in denied)


async def review(api: Api, asked: Iterable[Deed]) -> dict[Deed, bool | None]:
    """What these credentials may do; None where the server does not say. Raises ``Unreachable``."""
    wanted = tuple(asked)
    answers = await asyncio.gather(*(_ask(api, deed) for deed in wanted))
    return dict(zip(wanted, answers, strict=True))


async def _is_allowed(api: Api, deed: Deed) -> bool:
    return await _ask(api, deed) is not False


async def _ask(api: Api, deed: Deed) -> bool | None:
    resource, _, subresource = deed.resource.partition("/")
    wanted = {"verb": deed.verb, "group": deed.group, "resource": resource, "namespace": deed.namespace}
    question: JsonObject = {
        "apiVersion": REVIEWS.api_version,
        "kind": REVIEWS.kind,
        "spec": {"resourceAttributes": {**wanted, "subresource": subresource, "name": deed.name}},
    }
    try:
        answer = await api.create(REVIEWS, question)
    except ApiError:
        return None
    allowed = (answer.get("status") or {}).get("allowed")
    return allowed if isinstance(allowed, bool) else None
