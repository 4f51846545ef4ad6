"""Discovery in both forms, health, version, OpenAPI."""

from __future__ import annotations

from .api_world import World, story

V2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
V2BETA1 = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"


def test_aggregated_discovery_names_everything_in_two_answers():
    async def tell(world: World) -> None:
        core = await world.ask("GET", "/api?timeout=32s", accept=f"{V2},application/json")
        assert core.headers["content-type"] == V2
        [group] = core.body["items"]
        resources = {held["resource"]: held for held in group["versions"][0]["resources"]}
        assert resources["pods"]["shortNames"] == ["po"]
        assert resources["pods"]["categories"] == ["all"]
        [eviction] = [sub for sub in resources["pods"]["subresources"] if sub["subresource"] == "eviction"]
        assert eviction["responseKind"] == {"group": "policy", "version": "v1", "kind": "Eviction"}
        groups = (await world.ask("GET", "/apis", accept=f"{V2},application/json")).body["items"]
        assert {"apps", "policy", "discovery.k8s.io"} <= {held["metadata"]["name"] for held in groups}

    story(tell)


def test_who_knows_only_the_beta_is_answered_in_the_old_form():
    async def tell(world: World) -> None:
        answer = await world.ask("GET", "/apis", accept=f"{V2BETA1},application/json")
        assert (answer.body["kind"], answer.headers["content-type"]) == ("APIGroupList", "application/json")
        both = await world.ask("GET", "/apis", accept=f"{V2BETA1},{V2},application/json")
        assert both.body["kind"] == "APIGroupDiscoveryList"

    story(tell)


def test_the_old_form_lists_subresources_with_their_own_groups():
    async def tell(world: World) -> None:
        assert (await world.get("/api/"))["versions"] == ["v1"]
        entries = {held["name"]: held for held in (await world.get("/api/v1"))["resources"]}
        assert (entries["pods/eviction"]["group"], entries["pods/eviction"]["version"]) == ("policy", "v1")
        apps = {held["name"]: held for held in (await world.get("/apis/apps/v1/"))["resources"]}
        assert apps["deployments/scale"]["kind"] == "Scale"
        assert set(apps["deployments"]["verbs"]) >= {"get", "list", "watch", "deletecollection"}
        group = await world.get("/apis/apps")
        assert group["preferredVersion"] == {"groupVersion": "apps/v1", "version": "v1"}

    story(tell)


def test_the_server_says_it_is_well_and_which_version_it_plays():
    async def tell(world: World) -> None:
        for path in ("/healthz", "/readyz", "/livez", "/readyz/ping"):
            assert (await world.ask("GET", path)).raw == b"ok"
        assert (await world.get("/version/"))["gitVersion"].startswith("v1.36.")

    story(tell)


def test_every_served_group_has_an_openapi_document():
    async def tell(world: World) -> None:
        index = await world.get("/openapi/v3")
        assert {"api/v1", "apis/apps/v1"} <= index["paths"].keys()
        document = await world.get("/openapi/v3/apis/apps/v1?hash=x")
        operation = document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]
        assert operation["x-kubernetes-group-version-kind"] == {"group": "apps", "version": "v1", "kind": "Deployment"}
        assert "fieldValidation" in {held.get("name") for held in operation["parameters"]}
        assert (await world.ask("GET", "/openapi/v2")).status == 404
        kubectl = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
        assert (await world.ask("GET", "/openapi/v2", accept=kubectl)).raw.startswith(b"\x0a\x032.0")

    story(tell)


def test_what_is_not_served_is_not_found():
    async def tell(world: World) -> None:
        for path in (
            "/nope",
            "/api/v2",
            "/apis/nope",
            "/apis/apps/v2/deployments",
            "/api/v1/nopes",
            "/api/v1/pods/p/q/r",
        ):
            answer = await world.ask("GET", path)
            assert answer.status == 404, path
            if path in ("/nope", "/apis/nope"):
                assert answer.raw == b"404 page not found\n"
            else:
                assert answer.message == "the server could not find the requested resource"

    story(tell)


def test_a_method_a_kind_does_not_have_is_refused():
    async def tell(world: World) -> None:
        assert (await world.ask("DELETE", "/api/v1/namespaces")).status == 405
        assert (await world.ask("GET", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")).status == 405
        assert (await world.ask("PUT", "/api/v1/namespaces/default/pods", {})).status == 405

    story(tell)
