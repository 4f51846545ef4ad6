"""Tokens with fixed rules: what they may do, what a refusal says, and that reviews agree with it."""

from __future__ import annotations

import pytest

from tidegate.lab.apiserver.access import RuleError

from .api_world import CONFIGMAP, DEPLOYMENT, MERGE, POD, World, configmap, pod, story

REVIEWS = "/apis/authorization.k8s.io/v1"
READER = ("get,list,watch:pods,endpointslices.discovery.k8s.io", "get:pods/log,deployments")


def as_alice(tell, *rules, namespace=""):
    """Run ``tell(world, ask)``, where ``ask`` asks with alice's token."""

    async def told(world: World) -> None:
        token = world.server.access.register("alice", rules or READER, namespace)

        async def ask(method, path, body=None, **headers):
            return await world.ask(method, path, body, authorization=f"Bearer {token}", **headers)

        await tell(world, ask)

    story(told)


def test_a_request_without_a_rule_is_refused_in_kubernetes_words_and_changes_nothing():
    async def tell(world, ask):
        await world.create(POD, pod("x"))
        refused = await ask("PATCH", f"{POD}/x", {"metadata": {"labels": {"app": "cut"}}}, content_type=MERGE)
        assert (refused.status, refused.reason) == (403, "Forbidden")
        assert refused.message == (
            'pods "x" is forbidden: User "alice" cannot patch resource "pods" in API group "" '
            'in the namespace "default"'
        )
        assert refused.body["details"] == {"name": "x", "kind": "pods"}
        assert (await world.ask("GET", f"{POD}/x")).body["metadata"]["labels"] == {"app": "web"}

    as_alice(tell)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", POD, 200),
        ("GET", f"{POD}/x/log", 200),
        ("GET", f"{POD}/x/proxy/", 403),
        ("GET", f"{DEPLOYMENT}/none", 404),
        ("GET", DEPLOYMENT, 403),
        ("DELETE", POD, 403),
        ("GET", "/apis/apps/v1/namespaces/default/nosuches", 403),
        ("GET", "/version", 200),
        ("GET", "/apis/apps/v1", 200),
        ("GET", "/openapi/v3", 200),
        ("GET", "/metrics", 403),
    ],
)
def test_rules_name_verbs_resources_and_subresources(method, path, status):
    async def tell(world, ask):
        await world.create(POD, pod("x"))
        assert (await ask(method, path)).status == status

    as_alice(tell)


def test_a_namespace_confines_rules():
    async def tell(world, ask):
        assert (await ask("GET", POD)).status == 200
        everywhere = await ask("GET", "/api/v1/pods")
        assert everywhere.message == (
            'pods is forbidden: User "alice" cannot list resource "pods" in API group "" at the cluster scope'
        )
        assert (await ask("GET", POD.replace("default", "kube-system"))).status == 403

    as_alice(tell, "list:pods", namespace="default")


def test_rules_given_again_replace_the_old_ones():
    async def tell(world, ask):
        world.server.access.register("alice", ["create:configmaps"])
        assert (await ask("GET", POD)).status == 403
        assert (await ask("POST", CONFIGMAP, configmap())).status == 201

    as_alice(tell)


def test_reviews_answer_by_the_same_rules():
    async def tell(world, ask):
        async def may(verb, resource, **more):
            asked = {"spec": {"resourceAttributes": {"verb": verb, "resource": resource, **more}}}
            return (await ask("POST", f"{REVIEWS}/selfsubjectaccessreviews", asked)).body["status"]["allowed"]

        assert await may("get", "pods", namespace="default")
        assert await may("get", "pods", subresource="log")
        assert not await may("patch", "pods", namespace="default")
        assert not await may("get", "endpointslices")
        assert await may("get", "endpointslices", group="discovery.k8s.io")
        rules = await ask("POST", f"{REVIEWS}/selfsubjectrulesreviews", {"spec": {"namespace": "default"}})
        assert {"verbs": ["get", "list", "watch"], "apiGroups": [""], "resources": ["pods"]} in rules.body["status"][
            "resourceRules"
        ]
        who = await ask("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {})
        assert who.body["status"]["userInfo"] == {"username": "alice", "groups": ["system:authenticated"]}

    as_alice(tell)


@pytest.mark.parametrize("token", ["lab-bob", "nobodys", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJyb290In0.forged"])
def test_a_token_nobody_was_given_is_401(token):
    async def tell(world):
        answer = await world.ask("GET", "/version", authorization=f"Bearer {token}")
        assert (answer.status, answer.reason, answer.message) == (401, "Unauthorized", "Unauthorized")

    story(tell)


def test_the_labs_own_token_and_none_may_do_everything():
    async def tell(world):
        for headers in ({}, {"authorization": "Bearer lab"}):
            assert (await world.ask("GET", "/api/v1/secrets", **headers)).status == 200

    story(tell)


def test_who_may_do_everything_may_act_as_another():
    async def tell(world):
        world.server.access.register("alice", READER)
        assert (await world.ask("GET", POD, impersonate_user="alice")).status == 200
        refused = await world.ask("GET", POD, impersonate_user="bob")
        assert 'User "bob" cannot list' in refused.message

    story(tell)


def test_who_has_rules_may_act_as_themselves_only():
    async def tell(world, ask):
        assert (await ask("GET", POD, impersonate_user="alice")).status == 200
        refused = await ask("GET", POD, impersonate_user="kubernetes-admin")
        assert refused.message == (
            'users "kubernetes-admin" is forbidden: User "alice" cannot impersonate resource "users" in API group "" '
            "at the cluster scope"
        )

    as_alice(tell)


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ("pods", '"pods" is no rule'),
        ("get:", '"get:" is no rule'),
        ("look:pods", '"look" is no verb'),
        ("get:podz", 'the lab serves no "podz"'),
        ("get:pods/nowhere", 'the lab serves no "pods/nowhere"'),
        ("get:pods.apps", 'the lab serves no "pods.apps"'),
    ],
)
def test_a_rule_that_could_never_match_is_refused(rule, complaint):
    async def tell(world):
        with pytest.raises(RuleError, match=complaint):
            world.server.access.register("alice", [rule])
        assert world.server.access.tokens() == []

    story(tell)


def test_tokens_are_listed_as_they_can_be_given_again():
    async def tell(world):
        given = ("get:pods,pods/log", "patch:deployments.apps/scale", "*:*", "get:*/status")
        world.server.access.register("alice", given)
        assert world.server.access.tokens() == [{"name": "alice", "token": "lab-alice", "rules": list(given)}]

    story(tell)
