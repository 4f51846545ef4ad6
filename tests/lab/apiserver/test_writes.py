"""Create, replace and patch: what the server sets, keeps, refuses."""

from __future__ import annotations

import asyncio

import pytest

from tidegate.lab.apiserver.kinds import plain

from .api_world import (
    CONFIGMAP,
    DEPLOYMENT,
    JSON_PATCH,
    MERGE,
    POD,
    STRATEGIC,
    World,
    configmap,
    deployment,
    pod,
    story,
)


def test_a_new_object_gets_identity_and_a_generation():
    async def tell(world: World) -> None:
        made = await world.create(DEPLOYMENT, deployment())
        metadata = made["metadata"]
        assert metadata["generation"] == 1
        assert len(metadata["uid"]) == 36
        assert metadata["creationTimestamp"] == "2026-01-01T00:00:00Z"
        assert int(metadata["resourceVersion"]) > 0
        assert list(made)[:3] == ["kind", "apiVersion", "metadata"]

    story(tell)


def test_the_same_seed_makes_the_same_names_and_uids():
    async def names(world: World) -> list[str]:
        made = await world.create(POD, pod() | {"metadata": {"generateName": "web-"}})
        return [made["metadata"]["name"], made["metadata"]["uid"]]

    async def tell(world: World) -> None:
        first = await names(world)
        assert first == await names(World())
        assert first[0].startswith("web-") and len(first[0]) == 9

    story(tell)


def test_what_only_the_server_may_set_is_ignored_at_creation():
    async def tell(world: World) -> None:
        asked = configmap()
        asked["metadata"] |= {"uid": "mine", "generation": 9, "labels": {}}
        made = await world.create(CONFIGMAP, asked)
        assert made["metadata"]["uid"] != "mine"
        assert not made["metadata"].keys() & {"generation", "labels"}

    story(tell)


def test_a_resource_version_at_creation_is_refused():
    async def tell(world: World) -> None:
        asked = configmap()
        asked["metadata"]["resourceVersion"] = "77"
        answer = await world.ask("POST", CONFIGMAP, asked)
        assert answer.status == 500
        assert answer.message == "resourceVersion should not be set on objects to be created"

    story(tell)


def test_a_dry_run_beside_delete_options_is_not_read():
    """As the real server: the query counts only where there is no body, so this deletes."""

    async def tell(world: World) -> None:
        await world.create(CONFIGMAP, configmap())
        options = {"kind": "DeleteOptions", "apiVersion": "v1"}
        assert (await world.ask("DELETE", f"{CONFIGMAP}/m?dryRun=All", options)).status == 200
        assert (await world.ask("GET", f"{CONFIGMAP}/m")).status == 404

    story(tell)


def test_a_name_is_taken_once():
    async def tell(world: World) -> None:
        await world.create(CONFIGMAP, configmap())
        again = await world.ask("POST", CONFIGMAP, configmap())
        assert (again.status, again.reason) == (409, "AlreadyExists")
        assert again.message == 'configmaps "m" already exists'

    story(tell)


def test_an_unknown_namespace_is_not_found():
    async def tell(world: World) -> None:
        answer = await world.ask("POST", "/api/v1/namespaces/nope/configmaps", configmap())
        assert (answer.status, answer.message) == (404, 'namespaces "nope" not found')

    story(tell)


def test_a_pod_is_born_pending_with_the_default_account_and_tolerations():
    async def tell(world: World) -> None:
        made = await world.create(POD, pod() | {"status": {"phase": "Running"}})
        assert made["status"] == {"phase": "Pending", "qosClass": "BestEffort"}
        assert made["spec"]["serviceAccountName"] == "default"
        assert [held["tolerationSeconds"] for held in made["spec"]["tolerations"]] == [300, 300]
        assert made["spec"]["containers"][0]["volumeMounts"][0]["readOnly"] is True

    story(tell)


def test_a_stale_replace_is_a_conflict_in_the_real_servers_words():
    async def tell(world: World) -> None:
        made = await world.create(CONFIGMAP, configmap(a="1"))
        await world.patch(f"{CONFIGMAP}/m", {"data": {"a": "2"}})
        answer = await world.ask("PUT", f"{CONFIGMAP}/m", made | {"data": {"a": "stale"}})
        assert (answer.status, answer.reason) == (409, "Conflict")
        assert answer.message == (
            'Operation cannot be fulfilled on configmaps "m": the object has been modified; '
            "please apply your changes to the latest version and try again"
        )

    story(tell)


def test_a_patch_that_names_a_resource_version_is_checked():
    async def tell(world: World) -> None:
        made = await world.create(CONFIGMAP, configmap())
        version = made["metadata"]["resourceVersion"]
        patch = {"metadata": {"resourceVersion": version, "labels": {"a": "b"}}}
        assert (await world.patch(f"{CONFIGMAP}/m", patch))["metadata"]["labels"] == {"a": "b"}
        patch["metadata"]["labels"] = {"a": "c"}
        assert (await world.ask("PATCH", f"{CONFIGMAP}/m", patch, content_type=MERGE)).status == 409

    story(tell)


def test_a_change_that_changes_nothing_keeps_the_version():
    async def tell(world: World) -> None:
        made = await world.create(DEPLOYMENT, deployment())
        same = await world.patch(f"{DEPLOYMENT}/d", {"spec": {"replicas": 2}})
        assert same == made
        assert await world.patch(f"{DEPLOYMENT}/d", {}) == made

    story(tell)


def test_generation_counts_spec_changes_only():
    async def tell(world: World) -> None:
        await world.create(DEPLOYMENT, deployment())
        labelled = await world.patch(f"{DEPLOYMENT}/d", {"metadata": {"labels": {"a": "b"}}})
        assert labelled["metadata"]["generation"] == 1
        scaled = await world.patch(f"{DEPLOYMENT}/d", {"spec": {"replicas": 5}})
        assert scaled["metadata"]["generation"] == 2
        told = await world.patch(f"{DEPLOYMENT}/d/status", {"status": {"replicas": 5, "observedGeneration": 2}})
        assert told["metadata"]["generation"] == 2

    story(tell)


def test_status_and_spec_are_written_apart():
    async def tell(world: World) -> None:
        await world.create(DEPLOYMENT, deployment())
        both = {"spec": {"replicas": 9}, "status": {"replicas": 9}}
        main = await world.patch(f"{DEPLOYMENT}/d", both)
        assert (main["spec"]["replicas"], main["status"]) == (9, {})
        both = {"spec": {"replicas": 1}, "status": {"replicas": 4}, "metadata": {"labels": {"no": "no"}}}
        status = await world.patch(f"{DEPLOYMENT}/d/status", both)
        assert (status["spec"]["replicas"], status["status"]["replicas"]) == (9, 4)
        assert "labels" not in status["metadata"]

    story(tell)


@pytest.mark.parametrize("style", [MERGE, STRATEGIC])
def test_a_null_in_a_patch_removes_the_key(style):
    async def tell(world: World) -> None:
        await world.create(CONFIGMAP, configmap(a="1", b="2"))
        assert (await world.patch(f"{CONFIGMAP}/m", {"data": {"b": None}}, style))["data"] == {"a": "1"}

    story(tell)


def test_a_strategic_patch_merges_containers_by_name():
    async def tell(world: World) -> None:
        await world.create(DEPLOYMENT, deployment())
        containers = [{"name": "c", "image": "i:2"}]
        patch = {"spec": {"template": {"spec": {"containers": containers}}}}
        made = await world.patch(f"{DEPLOYMENT}/d", patch, STRATEGIC)
        container = made["spec"]["template"]["spec"]["containers"][0]
        assert (container["image"], container["terminationMessagePolicy"]) == ("i:2", "File")

    story(tell)


def test_a_json_patch_whose_test_fails_changes_nothing():
    async def tell(world: World) -> None:
        made = await world.create(DEPLOYMENT, deployment())
        uid = {"op": "test", "path": "/metadata/uid", "value": "another"}
        change = {"op": "replace", "path": "/spec/replicas", "value": 7}
        answer = await world.ask("PATCH", f"{DEPLOYMENT}/d", [uid, change], content_type=JSON_PATCH)
        assert (answer.status, answer.reason) == (422, "Invalid")
        assert answer.message == "the server rejected our request due to an error in our request"
        assert await world.get(f"{DEPLOYMENT}/d") == made

    story(tell)


def test_an_unknown_patch_grammar_is_refused():
    async def tell(world: World) -> None:
        await world.create(CONFIGMAP, configmap())
        answer = await world.ask("PATCH", f"{CONFIGMAP}/m", {}, content_type="application/what+json")
        assert (answer.status, answer.reason) == (415, "UnsupportedMediaType")
        assert answer.message == "415: Unsupported Media Type"

    story(tell)


def test_immutable_fields_stay():
    async def tell(world: World) -> None:
        await world.create(DEPLOYMENT, deployment())
        patch = {"spec": {"selector": {"matchLabels": {"app": "other"}}}}
        answer = await world.ask("PATCH", f"{DEPLOYMENT}/d", patch, content_type=MERGE)
        assert answer.status == 422
        assert "field is immutable" in answer.message
        assert {cause["field"] for cause in answer.body["details"]["causes"]} >= {"spec.selector"}

    story(tell)


def test_a_dry_run_answers_and_stores_nothing():
    async def tell(world: World) -> None:
        watch = await world.watch(CONFIGMAP)
        dry = await world.create(f"{CONFIGMAP}?dryRun=All", configmap())
        assert dry["metadata"]["uid"]
        assert (await world.ask("GET", f"{CONFIGMAP}/m")).status == 404
        made = await world.create(CONFIGMAP, configmap(a="1"))
        changed = await world.patch(f"{CONFIGMAP}/m?dryRun=All", {"data": {"a": "2"}})
        assert changed["data"] == {"a": "2"}
        await world.delete(f"{CONFIGMAP}/m?dryRun=All")
        assert await world.get(f"{CONFIGMAP}/m") == made
        assert await watch.names(1) == [("ADDED", "m")]

    story(tell)


def test_an_unknown_field_is_an_error_a_warning_or_nothing():
    async def tell(world: World) -> None:
        typo = deployment()
        typo["spec"]["templte"] = {}
        strict = await world.ask("POST", f"{DEPLOYMENT}?fieldValidation=Strict", typo)
        assert strict.status == 400
        assert strict.message.endswith('strict decoding error: unknown field "spec.templte"')
        warned = await world.ask("POST", f"{DEPLOYMENT}?fieldValidation=Warn", typo)
        assert warned.headers["warning"] == r'299 - "unknown field \"spec.templte\""'
        assert "templte" not in warned.body["spec"]
        typo["metadata"]["name"] = "e"
        assert "warning" not in (await world.ask("POST", f"{DEPLOYMENT}?fieldValidation=Ignore", typo)).headers

    story(tell)


def test_the_body_must_fit_the_url():
    async def tell(world: World) -> None:
        answer = await world.ask("POST", CONFIGMAP, pod())
        assert (answer.status, answer.reason) == (400, "BadRequest")
        elsewhere = configmap()
        elsewhere["metadata"]["namespace"] = "kube-system"
        answer = await world.ask("POST", CONFIGMAP, elsewhere)
        assert answer.message == "the namespace of the provided object does not match the namespace sent on the request"
        await world.create(CONFIGMAP, configmap())
        answer = await world.ask("PUT", f"{CONFIGMAP}/m", configmap("other"))
        assert answer.message == "the name of the object (other) does not match the name on the URL (m)"

    story(tell)


def test_a_body_that_is_no_json_is_a_bad_request():
    async def tell(world: World) -> None:
        assert (await world.ask("POST", CONFIGMAP, b"{")).status == 400
        assert (await world.ask("POST", CONFIGMAP, b"[]")).status == 400
        assert (await world.ask("POST", CONFIGMAP, b"<x/>", content_type="text/xml")).status == 415

    story(tell)


def test_yaml_bodies_are_read():
    async def tell(world: World) -> None:
        body = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: y}\ndata: {a: 'b'}\n"
        answer = await world.ask("POST", CONFIGMAP, body, content_type="application/yaml")
        assert answer.body["data"] == {"a": "b"}

    story(tell)


def test_an_event_has_two_names_and_one_store():
    async def tell(world: World) -> None:
        event = {
            "metadata": {"name": "e"},
            "regarding": {"kind": "Pod", "name": "p"},
            "note": "said",
            "reason": "Why",
            "reportingController": "c",
            "eventTime": "2026-01-01T00:00:00.000000Z",
            "action": "Act",
            "reportingInstance": "i",
            "type": "Normal",
        }
        made = await world.create("/apis/events.k8s.io/v1/namespaces/default/events", event)
        assert (made["apiVersion"], made["note"]) == ("events.k8s.io/v1", "said")
        core = await world.get("/api/v1/namespaces/default/events/e")
        assert (core["apiVersion"], core["message"], core["involvedObject"]["name"]) == ("v1", "said", "p")
        found = await world.get("/apis/events.k8s.io/v1/events?fieldSelector=regarding.name%3Dp")
        assert [item["regarding"]["name"] for item in found["items"]] == ["p"]

    story(tell)


def test_events_are_forgotten_after_an_hour(monkeypatch):
    monkeypatch.setattr(plain, "EVENTS_PER_SWEEP", 1)
    events = "/api/v1/namespaces/default/events"

    async def tell(world: World) -> None:
        event = {"involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}, "reason": "R", "message": "m"}
        for name in ("old", "repeated"):
            await world.create(events, {"metadata": {"name": name}, **event})
        await asyncio.sleep(3000)
        await world.patch(f"{events}/repeated", {"count": 2, "lastTimestamp": "2026-01-01T00:50:00Z"})
        await asyncio.sleep(700)
        await world.create(events, {"metadata": {"name": "new"}, **event})
        assert [item["metadata"]["name"] for item in (await world.get(events))["items"]] == ["new", "repeated"]

    story(tell)
