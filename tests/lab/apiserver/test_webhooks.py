"""Admission webhooks: who is asked, with what, and what the answers do."""

from __future__ import annotations

import asyncio
from typing import Any

from tidegate.kube import wire
from tidegate.kube.api import PODS, Patch
from tidegate.kube.exchange import Request, Response, whole

from .api_world import CONFIGMAP, DEPLOYMENT, POD, World, configmap, deployment, pod, story
from .hook_world import ADDRESS, MUTATING, PORT, Hooks, configuration, hook, label, mutating, patch, rule, validating


def test_a_mutating_webhook_changes_the_pod_that_is_stored() -> None:
    async def tell(world: World) -> None:
        hooks = Hooks({"/gate": label("gated", "yes")})
        await hooks.serve(world)
        await mutating(world, hook("/gate"))
        made = await world.create(POD, pod("p"))
        assert made["metadata"]["labels"] == {"app": "web", "gated": "yes"}
        assert (await world.get(f"{POD}/p"))["metadata"]["labels"]["gated"] == "yes"
        [(_, asked)] = hooks.asked
        assert asked["operation"] == "CREATE"
        assert asked["kind"] == {"group": "", "version": "v1", "kind": "Pod"}
        assert asked["resource"] == {"group": "", "version": "v1", "resource": "pods"}
        assert asked["namespace"] == "default" and asked["name"] == "p"
        assert asked["userInfo"]["username"] == "kubernetes-admin"
        assert asked["dryRun"] is False and asked["oldObject"] is None
        assert asked["options"]["kind"] == "CreateOptions"
        assert asked["object"]["spec"]["serviceAccountName"] == "default"
        assert "uid" not in asked["object"]["metadata"] and asked["object"]["status"] == {}

    story(tell)


def test_pods_of_controllers_pass_the_webhooks_too() -> None:
    async def tell(world: World) -> None:
        hooks = Hooks({"/": label("gated", "yes")})
        await hooks.serve(world)
        await mutating(world, hook())
        body = pod("x")
        body["metadata"] = {"generateName": "web-", "labels": {"app": "web"}, "namespace": "default"}
        made = await world.api.create(PODS, body)
        assert made["metadata"]["labels"]["gated"] == "yes"
        assert made["metadata"]["name"].startswith("web-")
        [(_, asked)] = hooks.asked
        assert "name" not in asked and "name" not in asked["object"]["metadata"]
        assert asked["userInfo"]["username"] == "system:kube-controller-manager"

    story(tell)


def test_what_is_asked_about_and_what_is_stored_are_one_object() -> None:
    """The name, the uid and the volume that validating webhooks saw are those that are stored."""

    async def tell(world: World) -> None:
        hooks = Hooks()
        await hooks.serve(world)
        await mutating(world, hook("/m"))
        await validating(world, hook("/v"))
        body = pod("x")
        body["metadata"] = {"generateName": "web-"}
        made = await world.create(POD, body)
        assert hooks.paths == ["/m", "/v"]
        seen = hooks.asked[1][1]["object"]
        assert (seen["metadata"]["name"], seen["metadata"]["uid"], seen["spec"]) == (
            made["metadata"]["name"],
            made["metadata"]["uid"],
            made["spec"],
        )

    story(tell)


def test_a_container_that_a_webhook_adds_gets_defaults_and_the_token_as_any_other() -> None:
    async def tell(world: World) -> None:
        sidecar = {"name": "gate", "image": "gate:1"}
        add = patch({"op": "add", "path": "/spec/containers/-", "value": sidecar})
        await (hooks := Hooks({"/": lambda _: add})).serve(world)
        await mutating(world, hook())
        made = await world.create(POD, pod("p"))
        first, second = made["spec"]["containers"]
        assert second["imagePullPolicy"] == "IfNotPresent"
        assert second["volumeMounts"] == first["volumeMounts"]
        assert len(made["spec"]["volumes"]) == 1 and len(hooks.asked) == 1

    story(tell)


def test_webhooks_are_asked_by_configuration_name_and_then_as_listed_and_each_sees_what_the_last_one_did() -> None:
    async def tell(world: World) -> None:
        hooks = Hooks({"/a": label("a", "1"), "/b": label("b", "1"), "/c": label("c", "1")})
        await hooks.serve(world)
        await mutating(world, hook("/c"), name="two")
        await mutating(world, hook("/b"), hook("/a", "i.example.com"), name="one")
        await world.create(POD, pod("p"))
        assert hooks.paths == ["/b", "/a", "/c"]
        assert hooks.asked[2][1]["object"]["metadata"]["labels"] == {"app": "web", "a": "1", "b": "1"}

    story(tell)


def test_one_that_wants_to_is_asked_again_when_a_later_one_changed_the_object() -> None:
    async def tell(world: World) -> None:
        hooks = Hooks({"/b": label("b", "1")})
        await hooks.serve(world)
        await mutating(
            world,
            hook("/a", "a.example.com", reinvocationPolicy="IfNeeded"),
            hook("/never", "n.example.com"),
            hook("/b", "b.example.com", reinvocationPolicy="IfNeeded"),
        )
        await world.create(POD, pod("p"))
        assert hooks.paths == ["/a", "/never", "/b", "/a"]

    story(tell)


def test_a_validating_webhook_that_denies_is_answered_in_the_real_servers_words() -> None:
    async def tell(world: World) -> None:
        said: dict[str, Any] = {"allowed": False, "status": {"message": "no gate", "code": 422, "reason": "Invalid"}}
        hooks = Hooks({"/v": lambda _: said, "/w": lambda _: {"allowed": False}})
        await hooks.serve(world)
        await validating(world, hook("/v"))
        answer = await world.ask("POST", POD, pod("p"))
        assert (answer.status, answer.reason) == (422, "Invalid")
        assert answer.message == 'admission webhook "h.example.com" denied the request: no gate'
        said.clear()
        said |= {"allowed": False}
        answer = await world.ask("POST", POD, pod("p"))
        assert answer.status == 400
        assert answer.message == 'admission webhook "h.example.com" denied the request without explanation'
        assert (await world.ask("GET", f"{POD}/p")).status == 404

    story(tell)


def test_a_webhook_that_cannot_be_reached_fails_the_write_or_not_as_its_policy_says() -> None:
    async def tell(world: World) -> None:
        server = await (hooks := Hooks()).serve(world)
        await mutating(world, hook("/m", failurePolicy="Ignore"))
        await validating(world, hook("/v", timeoutSeconds=3))
        await server.close()
        answer = await world.ask("POST", POD, pod("p"))
        assert answer.status == 500 and answer.reason == "InternalError"
        assert answer.message == (
            'Internal error occurred: failed calling webhook "h.example.com": failed to call webhook: Post '
            f'"https://hooks.default.svc:443/v?timeout=3s": dial tcp {ADDRESS}:{PORT}: connect: connection refused'
        )
        await world.delete("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/v")
        await world.create(POD, pod("p"))
        assert hooks.asked == []

    story(tell)


def test_a_webhook_that_does_not_answer_is_given_its_seconds() -> None:
    async def tell(world: World) -> None:
        async def silent(request: Request) -> Response:
            await asyncio.sleep(60)
            return whole(200, b"")

        server = await Hooks().serve(world)
        await server.close()
        await wire.serve(silent, ADDRESS, PORT)
        await validating(world, hook("/v", timeoutSeconds=3))
        began = asyncio.get_running_loop().time()
        answer = await world.ask("POST", POD, pod("p"))
        assert round(asyncio.get_running_loop().time() - began) == 3
        assert answer.message.endswith('Post "https://hooks.default.svc:443/v?timeout=3s": context deadline exceeded')

    story(tell)


def test_a_service_without_endpoints_or_without_the_port_or_none_at_all_is_named() -> None:
    async def tell(world: World) -> None:
        await (await Hooks().serve(world)).close()
        wanted = {
            "gone": 'service "gone" not found',
            "hooks": 'no service port 8443 found for service "hooks"',
            "bare": 'no endpoints available for service "bare"',
        }
        await world.create("/api/v1/namespaces/default/services", {
            "metadata": {"name": "bare"}, "spec": {"ports": [{"port": 8443}]},
        })  # fmt: skip
        for name, words in wanted.items():
            service = {"name": name, "namespace": "default", "port": 8443}
            await validating(world, hook(clientConfig={"service": service}), name=name)
            answer = await world.ask("POST", POD, pod("p"))
            url = f'"https://{name}.default.svc:8443/?timeout=10s"'
            assert answer.message.endswith(f"failed to call webhook: Post {url}: {words}")
            await world.delete(f"/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/{name}")

    story(tell)


def test_only_what_the_rules_and_selectors_name_is_asked_about() -> None:
    async def tell(world: World) -> None:
        hooks = Hooks()
        await hooks.serve(world)
        await world.create("/api/v1/namespaces", {"metadata": {"name": "team", "labels": {"gate": "on"}}})
        gated = {"matchLabels": {"gate": "on"}}
        await validating(
            world,
            hook("/ns", "a.example.com", namespaceSelector=gated),
            hook("/label", "b.example.com", objectSelector={"matchLabels": {"app": "api"}}),
            hook("/status", "c.example.com", rules=[rule("pods/status", operations=("UPDATE",))]),
            hook("/scale", "d.example.com", rules=[rule("*/scale", operations=("UPDATE",))]),
            hook("/gone", "e.example.com", rules=[rule(operations=("DELETE",))]),
            hook("/cluster", "f.example.com", rules=[rule("*", scope="Cluster")]),
        )
        await world.create(POD, pod("p"))
        assert hooks.paths == []
        await world.create("/api/v1/namespaces/team/pods", pod("p"))
        await world.create(POD, pod("q", {"app": "api"}))
        await world.patch(f"{POD}/p/status", {"status": {"phase": "Running"}})
        await world.create(DEPLOYMENT, deployment("d"))
        await world.patch(f"{DEPLOYMENT}/d/scale", {"spec": {"replicas": 5}})
        await world.delete(f"{POD}/q")
        await world.create("/api/v1/namespaces", {"metadata": {"name": "x"}})
        assert hooks.paths == ["/ns", "/label", "/status", "/scale", "/gone", "/cluster"]
        scale, gone = hooks.asked[3][1], hooks.asked[4][1]
        assert scale["kind"] == {"group": "autoscaling", "version": "v1", "kind": "Scale"}
        assert scale["subResource"] == "scale" and scale["object"]["spec"]["replicas"] == 5
        assert gone["object"] is None and gone["oldObject"]["metadata"]["name"] == "q"
        assert gone["options"]["kind"] == "DeleteOptions"

    story(tell)


def test_another_version_of_the_same_resource_is_matched_unless_exactly_asked_for() -> None:
    async def tell(world: World) -> None:
        hooks = Hooks()
        await hooks.serve(world)
        new = {"apiGroups": ["events.k8s.io"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["events"]}
        await validating(
            world,
            hook("/equivalent", "a.example.com", rules=[new]),
            hook("/exact", "b.example.com", rules=[new], matchPolicy="Exact"),
        )
        event = {"metadata": {"name": "e"}, "involvedObject": {"namespace": "default"}, "reason": "R", "message": "m"}
        await world.create("/api/v1/namespaces/default/events", event)
        [(path, asked)] = hooks.asked
        assert path == "/equivalent"
        assert asked["kind"]["group"] == "events.k8s.io" and asked["requestKind"]["group"] == ""
        assert asked["object"]["note"] == "m"

    story(tell)


def test_a_dry_run_is_told_to_webhooks_without_side_effects_and_stores_nothing() -> None:
    async def tell(world: World) -> None:
        hooks = Hooks({"/": label("gated", "yes")})
        await hooks.serve(world)
        await mutating(world, hook())
        answer = await world.ask("POST", f"{POD}?dryRun=All", pod("p"))
        assert answer.body["metadata"]["labels"]["gated"] == "yes"
        assert hooks.asked[0][1]["dryRun"] is True
        assert hooks.asked[0][1]["options"]["dryRun"] == ["All"]
        assert (await world.ask("GET", f"{POD}/p")).status == 404

    story(tell)


def test_warnings_of_webhooks_are_said_with_the_answer_denied_or_not() -> None:
    async def tell(world: World) -> None:
        said = {"allowed": True, "warnings": ["this pod has no gate", 'a "quoted" one']}
        hooks = Hooks({"/": lambda _: said})
        await hooks.serve(world)
        await validating(world, hook())
        answer = await world.ask("POST", POD, pod("p"))
        assert answer.headers["warning"] == '299 - "this pod has no gate", 299 - "a \\"quoted\\" one"'
        said["allowed"] = False
        answer = await world.ask("POST", POD, pod("q"))
        assert answer.status == 400 and answer.headers["warning"].startswith('299 - "this pod has no gate"')

    story(tell)


def test_an_object_that_changed_while_its_webhook_was_asked_is_asked_about_again() -> None:
    async def tell(world: World) -> None:
        async def slow(request: Request) -> Response:
            await asyncio.sleep(1)
            return await hooks.exchange(request)

        hooks = Hooks({"/": label("gated", "yes")})
        await (await hooks.serve(world)).close()
        await wire.serve(slow, ADDRESS, PORT)
        await world.create(CONFIGMAP, {**configmap("m", a="1"), "metadata": {"name": "m", "labels": {"x": "y"}}})
        await mutating(world, hook(rules=[rule("configmaps", operations=("UPDATE",))]))
        first = asyncio.ensure_future(world.patch(f"{CONFIGMAP}/m", {"data": {"b": "2"}}))
        await asyncio.sleep(0.5)
        second = asyncio.ensure_future(world.patch(f"{CONFIGMAP}/m", {"data": {"c": "3"}}))
        await asyncio.gather(first, second)
        assert (await world.get(f"{CONFIGMAP}/m"))["data"] == {"a": "1", "b": "2", "c": "3"}
        assert [sorted(asked["object"]["data"]) for _, asked in hooks.asked] == [
            ["a", "b"],
            ["a", "c"],
            ["a", "b", "c"],
        ]

    story(tell)


def test_a_whole_collection_is_asked_about_before_any_of_it_is_deleted() -> None:
    async def tell(world: World) -> None:
        hooks = Hooks({"/": lambda asked: {"allowed": asked["name"] != "b"}})
        await hooks.serve(world)
        for name in ("a", "b"):
            await world.create(CONFIGMAP, configmap(name))
        await validating(world, hook(rules=[rule("configmaps", operations=("DELETE",))]))
        answer = await world.ask("DELETE", CONFIGMAP)
        assert answer.status == 400
        assert [item["metadata"]["name"] for item in (await world.get(CONFIGMAP))["items"]] == ["a", "b"]

    story(tell)


def test_webhooks_are_never_asked_about_configurations_of_webhooks() -> None:
    async def tell(world: World) -> None:
        hooks = Hooks({"/": lambda _: {"allowed": False}})
        await hooks.serve(world)
        everything = [rule("*/*", operations=("*",))]
        await validating(world, hook(rules=everything))
        await mutating(world, hook(rules=everything))
        await world.delete(f"{MUTATING}/m")
        assert hooks.asked == []

    story(tell)


def test_an_answer_to_another_question_fails_the_call() -> None:
    async def tell(world: World) -> None:
        hooks = Hooks({"/": lambda _: {"uid": "other", "allowed": True}})
        await hooks.serve(world)
        await validating(world, hook())
        answer = await world.ask("POST", POD, pod("p"))
        uid = hooks.asked[0][1]["uid"]
        assert answer.message == (
            'Internal error occurred: failed calling webhook "h.example.com": received invalid webhook response: '
            f'expected response.uid="{uid}", got "other"'
        )

    story(tell)


def test_a_configuration_says_what_it_lacks() -> None:
    async def tell(world: World) -> None:
        bad = hook(
            name="short", sideEffects="Some", timeoutSeconds=31, matchConditions=[{"name": "x", "expression": "1"}]
        )
        bad["rules"] = [rule("pods", operations=("*", "CREATE")), {"operations": ["READ"]}]
        bad["clientConfig"] = {"url": "http://example.com/?a=b"}
        answer = await world.ask("POST", MUTATING, configuration("Mutating", "m", bad))
        assert answer.status == 422
        fields = [cause["field"].removeprefix("webhooks[0].") for cause in answer.body["details"]["causes"]]
        assert fields == [
            "name",
            "rules[0].operations",
            "rules[1].operations[0]",
            "rules[1].apiGroups",
            "rules[1].apiVersions",
            "rules[1].resources",
            "sideEffects",
            "timeoutSeconds",
            "clientConfig.url",
            "clientConfig.url",
            "matchConditions[0].expression",
        ]

    story(tell)


def test_an_in_process_caller_is_asked_about_its_patches() -> None:
    async def tell(world: World) -> None:
        hooks = Hooks({"/": lambda _: {"allowed": False}})
        await hooks.serve(world)
        await world.create(POD, pod("p"))
        await validating(world, hook(rules=[rule("pods", operations=("UPDATE",))]))
        try:
            await world.api.patch(PODS, "p", Patch({"metadata": {"labels": {"x": "y"}}}), "default")
        except Exception as error:
            assert "denied the request" in str(error)
        else:
            raise AssertionError("the patch was let through")
        assert hooks.asked[0][1]["options"]["kind"] == "UpdateOptions"
        assert hooks.asked[0][1]["oldObject"]["metadata"]["labels"] == {"app": "web"}

    story(tell)


def condition(text: str) -> list[dict[str, str]]:
    return [{"name": "c", "expression": text}]


def test_conditions_decide_who_is_asked() -> None:
    async def tell(world: World) -> None:
        hooks = Hooks()
        await hooks.serve(world)
        await validating(
            world,
            hook("/mine", "a.example.com", matchConditions=condition("request.userInfo.username == 'alice'")),
            hook("/ours", "b.example.com", matchConditions=condition("object.metadata.name.startsWith('p')")),
            hook("/old", "c.example.com", matchConditions=condition("oldObject != null")),
        )
        await world.create(POD, pod("p"))
        await world.create(POD, pod("q"))
        assert hooks.paths == ["/ours"]

    story(tell)


def test_a_condition_that_fails_to_be_evaluated_fails_the_write_unless_failures_are_ignored() -> None:
    async def tell(world: World) -> None:
        hooks = Hooks()
        await hooks.serve(world)
        unsaid = condition("object.metadata.annotations['gate'] == 'on'")
        await validating(world, hook(matchConditions=unsaid, failurePolicy="Ignore"))
        await world.create(POD, pod("p"))
        await validating(world, hook(matchConditions=unsaid), name="w")
        answer = await world.ask("POST", POD, pod("q"))
        assert answer.status == 403
        assert answer.message.startswith('pods "q" is forbidden: expression ')
        assert hooks.asked == []

    story(tell)


def test_custom_kinds_pass_webhooks_as_the_version_that_the_rules_name() -> None:
    async def tell(world: World) -> None:
        hooks = Hooks({"/": lambda _: patch({"op": "add", "path": "/spec/size", "value": 3})})
        await hooks.serve(world)
        properties = {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}
        schema = {"openAPIV3Schema": {"type": "object", "properties": properties}}
        versions = [
            {"name": name, "served": True, "storage": name == "v1", "schema": schema} for name in ("v1", "v1beta1")
        ]
        names = {"plural": "boats", "singular": "boat", "kind": "Boat"}
        spec = {"group": "tides.example", "names": names, "scope": "Namespaced", "versions": versions}
        definition = {"metadata": {"name": "boats.tides.example"}, "spec": spec}
        await world.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
        await asyncio.sleep(1)
        await mutating(world, hook(rules=[{**rule("boats"), "apiVersions": ["v1beta1"]}]))
        boat = {"apiVersion": "tides.example/v1", "kind": "Boat", "metadata": {"name": "b"}, "spec": {"size": 1}}
        made = await world.create("/apis/tides.example/v1/namespaces/default/boats", boat)
        assert (made["apiVersion"], made["spec"]) == ("tides.example/v1", {"size": 3})
        asked = hooks.asked[0][1]
        assert asked["kind"]["version"] == "v1beta1" and asked["object"]["apiVersion"] == "tides.example/v1beta1"
        assert asked["requestKind"]["version"] == "v1"

    story(tell)


def test_an_exec_is_asked_about_before_anything_is_run() -> None:
    async def tell(world: World) -> None:
        hooks = Hooks({"/": lambda _: {"allowed": False, "status": {"message": "not in here"}}})
        await hooks.serve(world)
        await world.create(POD, pod("p"))
        await validating(world, hook(rules=[rule("pods/exec", operations=("CONNECT",))]))
        answer = await world.ask("POST", f"{POD}/p/exec?command=ls&command=-l&stdout=true")
        assert answer.message == 'admission webhook "h.example.com" denied the request: not in here'
        [(_, asked)] = hooks.asked
        assert asked["object"] == {
            "kind": "PodExecOptions",
            "apiVersion": "v1",
            "stdout": True,
            "command": ["ls", "-l"],
        }
        assert asked["operation"] == "CONNECT" and asked["subResource"] == "exec"

    story(tell)
