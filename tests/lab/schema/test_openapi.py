"""OpenAPI documents: enough for apply, and with prose for explain."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.kube.api import DEPLOYMENTS, NAMESPACES, Resource
from tidegate.lab.apiserver.schema import openapi

VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True)
class Sub:
    name: str
    kind: str
    verbs: tuple[str, ...] = ("get", "patch", "update")
    group: str = ""
    version: str = ""


@dataclass(frozen=True)
class Row:
    resource: Resource
    verbs: tuple[str, ...] = VERBS
    subresources: tuple[Sub, ...] = ()
    custom: None = None


def references(value):
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "$ref":
                yield item.removeprefix("#/components/schemas/")
            else:
                yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def test_the_index_names_a_url_per_group_version():
    paths = openapi.index({"apis/apps/v1": "", "api/v1": ""})["paths"]
    assert list(paths) == ["api/v1", "apis/apps/v1"]
    assert paths["api/v1"]["serverRelativeURL"].startswith("/openapi/v3/api/v1?hash=")


def test_every_write_offers_field_validation_and_names_its_kind():
    scale = Sub("scale", "Scale", group="autoscaling", version="v1")
    document = openapi.document("apis/apps/v1", [Row(DEPLOYMENTS, subresources=(scale,))])
    paths = document["paths"]
    assert sorted(paths) == [
        "/apis/apps/v1/deployments",
        "/apis/apps/v1/namespaces/{namespace}/deployments",
        "/apis/apps/v1/namespaces/{namespace}/deployments/{name}",
        "/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale",
    ]
    one = paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]
    assert sorted(one) == ["delete", "get", "patch", "put"]
    assert {p["name"] for p in one["patch"]["parameters"]} >= {"dryRun", "fieldManager", "fieldValidation"}
    assert "application/strategic-merge-patch+json" in one["patch"]["requestBody"]["content"]
    gvk = one["put"]["x-kubernetes-group-version-kind"]
    assert gvk == {"group": "apps", "version": "v1", "kind": "Deployment"}
    below = paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]["get"]
    assert below["x-kubernetes-group-version-kind"]["group"] == "autoscaling"


def test_every_reference_leads_to_a_schema_with_prose():
    document = openapi.document("apis/apps/v1", [Row(DEPLOYMENTS)])
    schemas = document["components"]["schemas"]
    assert set(references(document)) <= set(schemas)
    strategy = schemas["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["strategy"]
    assert strategy["description"].startswith("The deployment strategy to use")
    assert strategy["allOf"] == [{"$ref": "#/components/schemas/io.k8s.api.apps.v1.DeploymentStrategy"}]
    containers = schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"]
    assert containers["x-kubernetes-patch-merge-key"] == "name"


def test_cluster_scoped_kinds_and_unknown_kinds_have_paths_too():
    gizmo = Resource("x.org", "v1", "gizmos", "Gizmo")
    paths = openapi.document("x", [Row(NAMESPACES), Row(gizmo)])["paths"]
    assert "/api/v1/namespaces/{name}" in paths
    post = paths["/apis/x.org/v1/namespaces/{namespace}/gizmos"]["post"]
    assert post["x-kubernetes-group-version-kind"]["kind"] == "Gizmo"


def test_enumerated_fields_list_their_values_and_what_they_mean():
    schemas = openapi.document("apis/apps/v1", [Row(DEPLOYMENTS)])["components"]["schemas"]
    kind = schemas["io.k8s.api.apps.v1.DeploymentStrategy"]["properties"]["type"]
    assert kind["enum"] == ["Recreate", "RollingUpdate"]
    told = ' - `"Recreate"` Kill all existing pods before creating new ones.'
    assert f"\n\nPossible enum values:\n{told}\n" in kind["description"]
