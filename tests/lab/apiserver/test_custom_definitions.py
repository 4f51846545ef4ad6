"""Definitions: kinds that come while the server runs, and go again with what they had."""

from __future__ import annotations

import copy

from .api_world import TABLE, World, story
from .custom_world import DEFINITION, DEFINITIONS, GIZMOS, GROUP, JSON, define, definition, gizmo, post, root


def conditions(obj):
    return {one["type"]: (one["status"], one["reason"]) for one in obj["status"]["conditions"] or ()}


def test_a_definition_is_named_then_established_then_served():
    async def tell(world: World) -> None:
        assert (await world.ask("GET", GIZMOS)).status == 404
        watch = await world.watch(DEFINITIONS)
        await define(world)
        seen = [conditions((await watch.next())[1]) for _ in range(3)]
        assert seen[0] == {}
        assert seen[1] == {"NamesAccepted": ("True", "NoConflicts"), "Established": ("False", "Installing")}
        assert seen[2]["Established"] == ("True", "InitialNamesAccepted")
        assert (await world.get(GIZMOS))["kind"] == "GizmoList"

    story(tell)


def test_discovery_tells_of_it_in_both_forms_and_forgets_it():
    async def tell(world: World) -> None:
        accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        before = await world.get("/apis")
        index = (await world.get("/openapi/v3"))["paths"]
        await define(world, subresources={"status": {}})
        listed = (await world.get(f"/apis/{GROUP}/v1"))["resources"]
        assert [(one["name"], one["kind"]) for one in listed] == [("gizmos", "Gizmo"), ("gizmos/status", "Gizmo")]
        assert (listed[0]["shortNames"], listed[0]["categories"], listed[0]["singularName"]) == (
            ["gz"],
            ["toys"],
            "gizmo",
        )
        groups = (await world.get("/apis", accept=accept))["items"]
        found = next(one for one in groups if one["metadata"].get("name") == GROUP)["versions"][0]["resources"][0]
        assert (found["resource"], found["shortNames"], found["scope"]) == ("gizmos", ["gz"], "Namespaced")
        document = await world.get(f"/openapi/v3/apis/{GROUP}/v1")
        schema = document["components"]["schemas"]["org.example.gizmo.v1.Gizmo"]
        assert set(schema["properties"]) == {"apiVersion", "kind", "metadata", "spec"}
        patch = document["paths"][f"/apis/{GROUP}/v1/namespaces/{{namespace}}/gizmos/{{name}}"]["patch"]
        assert "application/strategic-merge-patch+json" not in patch["requestBody"]["content"]
        assert (await world.get("/openapi/v3"))["paths"] != index
        await world.delete(DEFINITION)
        assert await world.get("/apis") == before
        assert (await world.get("/openapi/v3"))["paths"] == index

    story(tell)


def test_the_document_of_a_changed_schema_is_another_one():
    async def tell(world: World) -> None:
        place = f"apis/{GROUP}/v1"
        await define(world, root({"a": {"type": "string"}}))
        first = (await world.get("/openapi/v3"))["paths"][place]["serverRelativeURL"]
        versions = definition(root({"b": {"type": "string"}}))["spec"]["versions"]
        await world.patch(DEFINITION, {"spec": {"versions": versions}})
        assert (await world.get("/openapi/v3"))["paths"][place]["serverRelativeURL"] != first

    story(tell)


def test_a_name_in_use_is_not_accepted_until_it_is_free():
    async def tell(world: World) -> None:
        await define(world)
        other = definition()
        other["metadata"]["name"] = f"things.{GROUP}"
        other["spec"]["names"] = {"plural": "things", "kind": "Gizmo", "shortNames": ["gz"]}
        await world.create(DEFINITIONS, other)
        things = f"{DEFINITIONS}/things.{GROUP}"
        refused = await world.get(things)
        assert conditions(refused) == {
            "NamesAccepted": ("False", "ListKindConflict"),
            "Established": ("False", "NotAccepted"),
        }
        assert (await world.ask("GET", GIZMOS.replace("gizmos", "things"))).status == 404
        await world.delete(DEFINITION)
        assert conditions(await world.get(things))["Established"] == ("True", "InitialNamesAccepted")
        assert (await world.get(GIZMOS.replace("gizmos", "things")))["items"] == []

    story(tell)


def test_a_deleted_definition_takes_its_objects_along_and_their_watchers_hear_of_each():
    async def tell(world: World) -> None:
        await define(world)
        for name in ("a", "b"):
            await post(world, name)
        watch = await world.watch(GIZMOS)
        await world.delete(DEFINITION)
        assert [(kind, obj["metadata"]["name"]) for kind, obj in await watch.rest()] == [
            ("ADDED", "a"), ("ADDED", "b"), ("DELETED", "a"), ("DELETED", "b"),
        ]  # fmt: skip
        assert (await world.ask("GET", DEFINITION)).status == 404
        await define(world)
        assert (await world.get(GIZMOS))["items"] == []

    story(tell)


def test_a_definition_waits_for_finalizers_and_lets_nothing_new_in():
    async def tell(world: World) -> None:
        await define(world)
        held = gizmo("held")
        held["metadata"]["finalizers"] = ["example.org/held"]
        await world.create(GIZMOS, held)
        deleted = await world.delete(DEFINITION)
        assert deleted["metadata"]["finalizers"] == ["customresourcecleanup.apiextensions.k8s.io"]
        assert conditions(await world.get(DEFINITION))["Terminating"] == ("True", "InstanceDeletionInProgress")
        late = await post(world, "late")
        assert (late.status, late.message) == (
            403,
            f'gizmos.{GROUP} "late" is forbidden: create not allowed while custom resource definition is terminating',
        )
        await world.patch(f"{GIZMOS}/held", {"metadata": {"finalizers": None}})
        assert (await world.ask("GET", DEFINITION)).status == 404

    story(tell)


def two_versions():
    made = definition(root({"a": {"type": "string"}}))
    beta = copy.deepcopy(made["spec"]["versions"][0]) | {"name": "v1beta1", "storage": False, "deprecated": True}
    beta["schema"] = {"openAPIV3Schema": root({"a": {"type": "string"}, "b": {"type": "string"}})}
    made["spec"]["versions"].append(beta)
    return made


def test_an_object_is_seen_in_every_version_and_stored_in_one():
    async def tell(world: World) -> None:
        await world.create(DEFINITIONS, two_versions())
        beta = GIZMOS.replace("/v1/", "/v1beta1/")
        sent = {**gizmo("g", {"a": "1", "b": "2"}), "apiVersion": f"{GROUP}/v1beta1"}
        made = await world.ask("POST", beta, sent, content_type=JSON)
        assert (made.body["apiVersion"], made.body["spec"]) == (f"{GROUP}/v1beta1", {"a": "1"})
        assert made.headers["warning"].endswith(f'v1beta1 Gizmo is deprecated; use {GROUP}/v1 Gizmo"')
        assert (await world.get(f"{GIZMOS}/g"))["apiVersion"] == f"{GROUP}/v1"
        group = await world.get(f"/apis/{GROUP}")
        assert [one["version"] for one in group["versions"]] == ["v1", "v1beta1"]

    story(tell)


def test_what_is_stored_follows_a_changed_definition():
    async def tell(world: World) -> None:
        await world.create(DEFINITIONS, two_versions())
        await post(world, "g", a="1")
        version = (await world.get(f"{GIZMOS}/g"))["metadata"]["resourceVersion"]
        watch = await world.watch(f"{GIZMOS}?resourceVersion={version}")
        changed = two_versions()["spec"]["versions"]
        changed[0]["storage"], changed[1]["storage"] = False, True
        changed[1]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["c"] = {
            "type": "string", "default": "new",
        }  # fmt: skip
        found = await world.patch(DEFINITION, {"spec": {"versions": changed}})
        assert found["status"]["storedVersions"] == ["v1", "v1beta1"]
        beta = await world.get(GIZMOS.replace("/v1/", "/v1beta1/") + "/g")
        assert (beta["spec"], beta["metadata"]["resourceVersion"]) == ({"a": "1", "c": "new"}, version)
        assert (await world.get(f"{GIZMOS}/g"))["spec"] == {"a": "1"}
        await world.patch(f"{GIZMOS}/g", {"spec": {"a": "2"}})
        assert await watch.names(1) == [("MODIFIED", "g")]

    story(tell)


def test_definitions_are_printed_with_the_time_of_their_creation():
    async def tell(world: World) -> None:
        await define(world)
        table = await world.get(DEFINITIONS, accept=TABLE)
        assert [(one["name"], one["type"]) for one in table["columnDefinitions"]] == [
            ("Name", "string"), ("Created At", "date"),
        ]  # fmt: skip

    story(tell)


def test_a_definition_that_cannot_be_kept_is_refused_with_the_path_of_what_is_wrong():
    async def tell(world: World) -> None:
        async def refused(change) -> list[str]:
            made = definition(root({"n": {"type": "integer"}}))
            change(made["spec"], made["spec"]["versions"][0])
            answer = await world.ask("POST", DEFINITIONS, made, content_type=JSON)
            assert answer.status == 422, answer.raw
            return [cause["field"] for cause in answer.body["details"]["causes"]]

        def node(version, **schema):
            version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["x"] = schema

        at = "spec.validation.openAPIV3Schema.properties[spec].properties[x]"
        assert await refused(lambda spec, version: spec.update(scope="Anywhere")) == ["spec.scope"]
        assert await refused(lambda spec, version: node(version, description="?")) == [f"{at}.type"]
        assert await refused(lambda spec, version: node(version, type="integer", default="x")) == [f"{at}.default"]
        assert await refused(lambda spec, version: node(version, type="array")) == [f"{at}.items"]
        assert await refused(
            lambda spec, version: version.update(
                additionalPrinterColumns=[{"name": "A", "type": "string", "jsonPath": ".a[?("}]
            )
        ) == ["spec.additionalPrinterColumns[0].JSONPath"]
        webhook = {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"]}}
        assert await refused(lambda spec, version: spec.update(conversion=webhook)) == ["spec.conversion.strategy"]

    story(tell)
