"""How a command line shows agents and coordinator that it may ask: a token for them alone, in a header of our own.

It comes through the API server's ``pods/proxy``, which takes the ``Authorization`` header off (k8s staging apiserver,
pkg/endpoints/filters/authentication.go) and shows no certificate of its own. So the caller asks the API server for a
token of account ``tidegate-caller`` with the audience ``tidegate``, which no API server takes for anything; who may do
that is RBAC's word (docs/decisions/0004).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidegate.kube.api import Resource
from tidegate.model.names import AGENT_PORT, COORDINATOR_PORT

AUDIENCE = "tidegate"
ACCOUNT = "tidegate-caller"
TOKEN_HEADER = "x-tidegate-token"
GROUP, RESOURCE = "tidegate.dev", "questions"
"""What a token's account has to be allowed in our namespace: ``get`` to look, ``create`` for all else. No object of
that kind exists; it is a name for RBAC."""
TOKENREVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", False)
ACCESSREVIEWS = Resource("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", False)

AGENT_ASK_PORT, COORDINATOR_ASK_PORT = AGENT_PORT + 2, COORDINATOR_PORT + 2
"""Where command lines ask. The ports without 2 are for agents and coordinator among each other."""
AGENT_NAME, COORDINATOR_NAME = "agent.tidegate", "coordinator.tidegate"
"""In their certificates."""
ASK_ANNOTATION = "tidegate.dev/ask"
"""On an agent's pod, and on the coordinator's Lease: "https:15202", where and how command lines ask it. Without it
(before 0.2) they ask on the one port there is, without a token."""


def ask_target(pod: str, annotated: Mapping[str, Any], otherwise: int) -> tuple[str, bool]:
    """The pod as ``pods/proxy`` names it, and whether a token is wanted there."""
    told = str((annotated.get("annotations") or {}).get(ASK_ANNOTATION, ""))
    scheme, _, port = told.partition(":")
    if scheme not in ("http", "https") or not port.isdigit():
        return f"{pod}:{otherwise}", False
    return (f"https:{pod}:{port}" if scheme == "https" else f"{pod}:{port}"), True
