"""Definitions of gizmos, for the stories of custom kinds."""

from __future__ import annotations

from typing import Any

from .api_world import Answer, World

GROUP = "gizmo.example.org"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
DEFINITION = f"{DEFINITIONS}/gizmos.{GROUP}"
GIZMOS = f"/apis/{GROUP}/v1/namespaces/default/gizmos"
JSON, APPLY = "application/json", "application/apply-patch+yaml"


def root(spec: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A schema whose spec has these properties; ``more`` stands beside them."""
    return {"type": "object", "properties": {"spec": {"type": "object", "properties": spec or {}, **more}}}


def definition(schema: dict[str, Any] | None = None, **version: Any) -> dict[str, Any]:
    """Gizmos with one version; ``version`` adds to it."""
    one = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema or root()}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"gizmos.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"plural": "gizmos", "kind": "Gizmo", "shortNames": ["gz"], "categories": ["toys"]},
            "versions": [{**one, **version}],
        },
    }


def gizmo(name: str = "g", spec: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    made = {"apiVersion": f"{GROUP}/v1", "kind": "Gizmo", "metadata": {"name": name}, **more}
    return made if spec is None else {**made, "spec": spec}


async def define(world: World, schema: dict[str, Any] | None = None, **version: Any) -> None:
    await world.create(DEFINITIONS, definition(schema, **version))


async def post(world: World, name: str = "g", asked: str = "", /, **spec: Any) -> Answer:
    """Create a gizmo with this spec; ``asked`` is the query."""
    return await world.ask("POST", f"{GIZMOS}{asked}", gizmo(name, spec), content_type=JSON)


async def complaints(world: World, /, **spec: Any) -> list[str]:
    """What the server has against a spec."""
    answer = await post(world, "tried", "?dryRun=All", **spec)
    if answer.status == 201:
        return []
    assert answer.status == 422, answer.raw
    return [f"{cause['field']}: {cause['message']}" for cause in answer.body["details"]["causes"]]
