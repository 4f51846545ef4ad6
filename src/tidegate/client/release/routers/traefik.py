"""Router ``traefik``: weights of a ``TraefikService`` of kind weighted (traefik.io/v1alpha1), which the user's
IngressRoutes name. It has no matches, so no headers; its ``sticky`` cookie is left as it is."""

from __future__ import annotations

from typing import Any

from tidegate.client.release.routers.pair import RECORD, Pair, record, recorded
from tidegate.engine.act import Step as Change
from tidegate.engine.act import pointer
from tidegate.kube.api import JsonObject, Resource
from tidegate.release.fork import Fork

CONTROLLER = "traefik.io/traefik"


class TraefikService:
    """A ``Router``."""

    resource = Resource("traefik.io", "v1alpha1", "traefikservices", "TraefikService")

    def fork(self, obj: JsonObject, pair: Pair) -> Fork:
        """Raises ``ValueError``."""
        name = f"traefikservice/{obj['metadata']['name']}"
        services = _services(obj)
        if services is None:
            raise ValueError(f"{name} is not a weighted one: there are no $.spec.weighted.services")
        percents = [pair.percent(services, f"{name} $.spec.weighted")] if pair.is_stable_in(services) else []
        return pair.fork(name, percents, "", recorded(obj) is not None)

    def divided(self, obj: JsonObject, pair: Pair, percent: int, header: str) -> list[Change]:
        """Raises ``ValueError`` for a header."""
        if header:
            raise ValueError(
                f"traefikservice/{obj['metadata']['name']} has no matches: a header takes router httproute"
            )
        services, before = _services(obj) or [], recorded(obj)
        of = next(one for one in services if pair.place(one) == pair.stable)
        weights = before if before is not None else {"0": of.get("weight")}
        notes = obj["metadata"].get("annotations")
        made: list[Change] = [] if notes else [{"op": "add", "path": "/metadata/annotations", "value": {}}]
        noted: Change = {"op": "add", "path": f"/metadata/annotations/{pointer(RECORD)}", "value": record(weights)}
        return [_written(pair.divided(services, percent)), *made, noted]

    def restored(self, obj: JsonObject, pair: Pair) -> list[Change]:
        weight = (recorded(obj) or {}).get("0")
        path = f"/metadata/annotations/{pointer(RECORD)}"
        gone: list[Change] = [{"op": "remove", "path": path}] if recorded(obj) is not None else []
        return [_written(pair.undivided(_services(obj) or [], weight)), *gone]

    def behind(self, obj: JsonObject) -> tuple[str, ...]:
        """It has no status: only Traefik itself can say."""
        return ()

    def controllers(self, obj: JsonObject) -> tuple[str, ...]:
        return (CONTROLLER,)


def _services(obj: JsonObject) -> list[Any] | None:
    weighted = (obj.get("spec") or {}).get("weighted") or {}
    found = weighted.get("services")
    return list(found) if found else None


def _written(services: list[JsonObject]) -> Change:
    return {"op": "replace", "path": "/spec/weighted/services", "value": services}
