"""What performers of steps act through, and what may come of a write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tidegate.client.options import Identity
from tidegate.engine.ledger import Ledger
from tidegate.kube.api import JsonObject
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError, KubeError
from tidegate.release.template import fingerprint


@dataclass(frozen=True, slots=True)
class Ground:
    """What performers act through. ``seed`` is of names and tokens, None draws them."""

    client: KubeClient
    identity: Identity
    ledger: Ledger | None = None
    seed: int | None = None
    drain_seconds: float = 300.0


class Failed(KubeError):
    """A step that came to nothing, with why. A long one is tried again; of any other the caller is told."""


def check_kept(template: Mapping[str, Any], obj: JsonObject) -> None:
    """Whether a Deployment as it came back has the template that was sent. Raises ``Failed`` where a webhook of the
    cluster has changed it: as another revision it would be asked for again, for ever."""
    if fingerprint(obj["spec"]["template"]) != fingerprint(template):
        raise Failed(
            f"deployment/{obj['metadata']['name']} came back with another template than was sent: a webhook of the "
            "cluster changes it; ask for the template as that leaves it"
        )


def is_stale(error: ApiError) -> bool:
    """Whether a write was refused because its object is not as it was read (a failed ``test`` is 422), or is gone.

    What the API refuses as invalid is 422 too, and stays so however often it is tried.
    """
    is_untrue = error.code == 422 and " is invalid: " not in str(error)
    return error.is_conflict or error.is_not_found or is_untrue
