"""Roles and bindings: what a service account's token may do, and what reviews say of it."""

from __future__ import annotations

import asyncio

import pytest

from .api_world import CONFIGMAP, POD, World, configmap, pod, story

RBAC = "/apis/rbac.authorization.k8s.io/v1"
HERE = f"{RBAC}/namespaces/default"
ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
REVIEWS = "/apis/authorization.k8s.io/v1"
TOKENS = "/apis/authentication.k8s.io/v1/tokenreviews"
CI = {"kind": "ServiceAccount", "name": "ci", "namespace": "default"}
WHO = 'User "system:serviceaccount:default:ci" cannot'


def rule(*verbs, groups=("",), resources=(), **more):
    return {"verbs": list(verbs), "apiGroups": list(groups), "resources": list(resources), **more}


async def bind(world, *rules, kind="Role", name="r", subject=CI, labels=None, binding="RoleBinding"):
    """A role of these rules, bound; without rules the role of that name is bound as it is, or is not there."""
    plural = "roles" if kind == "Role" else "clusterroles"
    if rules:
        where = f"{HERE}/{plural}" if kind == "Role" else f"{RBAC}/{plural}"
        await world.create(where, {"metadata": {"name": name, "labels": labels or {}}, "rules": list(rules)})
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}
    where = f"{HERE}/rolebindings" if binding == "RoleBinding" else f"{RBAC}/clusterrolebindings"
    await world.create(where, {"metadata": {"name": f"b-{name}"}, "roleRef": ref, "subjects": [subject]})


def as_ci(tell):
    """Run ``tell(world, ask)``, where ``ask`` asks with the token of the service account default/ci."""

    async def told(world: World) -> None:
        await world.create(ACCOUNTS, {"metadata": {"name": "ci"}})
        token = (await world.create(f"{ACCOUNTS}/ci/token", {}))["status"]["token"]

        async def ask(method, path, body=None, **headers):
            return await world.ask(method, path, body, authorization=f"Bearer {token}", **headers)

        await tell(world, ask)

    story(told)


def test_a_service_account_may_nothing_until_something_is_bound_to_it():
    async def tell(world, ask):
        refused = await ask("GET", POD)
        assert (refused.status, refused.reason) == (403, "Forbidden")
        where = 'in the namespace "default"'
        assert refused.message == f'pods is forbidden: {WHO} list resource "pods" in API group "" {where}'
        await bind(world, rule("list", resources=["pods"]))
        assert (await ask("GET", POD)).status == 200
        assert (await ask("GET", "/api/v1/pods")).status == 403
        assert (await ask("GET", "/version")).status == 200

    as_ci(tell)


@pytest.mark.parametrize(
    ("given", "method", "path", "status"),
    [
        (rule("get", resources=["pods"]), "GET", f"{POD}/a", 200),
        (rule("get", resources=["pods"]), "GET", f"{POD}/a/log", 403),
        (rule("get", resources=["pods/log"]), "GET", f"{POD}/a", 403),
        (rule("get", resources=["*/status"]), "GET", f"{POD}/a/status", 200),
        (rule("get", resources=["pods"], resourceNames=["a"]), "GET", f"{POD}/a", 200),
        (rule("get", resources=["pods"], resourceNames=["b"]), "GET", f"{POD}/a", 403),
        (rule("list", resources=["pods"], resourceNames=["a"]), "GET", POD, 403),
        (rule("list", resources=["pods"], resourceNames=["a"]), "GET", f"{POD}?fieldSelector=metadata.name=a", 200),
        (rule("*", resources=["*"]), "GET", f"{POD}/a", 200),
        (rule("*", groups=["apps"], resources=["*"]), "GET", f"{POD}/a", 403),
        (rule("*", groups=["*"], resources=["*"]), "GET", "/apis/apps/v1/namespaces/default/deployments", 200),
    ],
    ids=str,
)
def test_rules_name_groups_resources_subresources_and_objects(given, method, path, status):
    async def tell(world, ask):
        await world.create(POD, pod("a"))
        await bind(world, given)
        assert (await ask(method, path)).status == status

    as_ci(tell)


def test_a_cluster_role_holds_where_it_is_bound():
    async def tell(world, ask):
        await bind(world, rule("list", resources=["pods"]), kind="ClusterRole")
        assert (await ask("GET", POD)).status == 200
        assert (await ask("GET", "/api/v1/pods")).status == 403
        await bind(world, kind="ClusterRole", binding="ClusterRoleBinding")
        assert (await ask("GET", "/api/v1/pods")).status == 200

    as_ci(tell)


@pytest.mark.parametrize(
    "subject",
    [
        {"kind": "Group", "name": "system:serviceaccounts"},
        {"kind": "Group", "name": "system:serviceaccounts:default"},
        {"kind": "Group", "name": "system:authenticated"},
        {"kind": "User", "name": "system:serviceaccount:default:ci"},
        {"kind": "ServiceAccount", "name": "ci", "namespace": "default"},
    ],
    ids=lambda one: f"{one['kind']} {one['name']}",
)
def test_an_account_is_bound_by_its_name_its_user_and_its_groups(subject):
    async def tell(world, ask):
        await bind(world, rule("list", resources=["pods"]), subject=subject)
        assert (await ask("GET", POD)).status == 200

    as_ci(tell)


def test_an_aggregated_role_has_the_rules_of_all_that_carry_its_label():
    async def tell(world, ask):
        selectors = [{"matchLabels": {"part-of": "ci"}}]
        role = {"metadata": {"name": "all"}, "aggregationRule": {"clusterRoleSelectors": selectors}, "rules": []}
        await world.create(f"{RBAC}/clusterroles", role)
        await bind(world, kind="ClusterRole", name="all")
        assert (await ask("GET", POD)).status == 403
        part = {"metadata": {"name": "part", "labels": {"part-of": "ci"}}, "rules": [rule("list", resources=["pods"])]}
        await world.create(f"{RBAC}/clusterroles", part)
        assert (await ask("GET", POD)).status == 200

    as_ci(tell)


def test_the_roles_every_cluster_has_can_be_bound_and_added_to():
    async def tell(world, ask):
        await bind(world, kind="ClusterRole", name="view")
        assert (await ask("GET", POD)).status == 200
        assert (await ask("GET", "/api/v1/namespaces/default/secrets")).status == 403
        labels = {"rbac.authorization.k8s.io/aggregate-to-view": "true"}
        more = {"metadata": {"name": "m", "labels": labels}, "rules": [rule("list", resources=["secrets"])]}
        await world.create(f"{RBAC}/clusterroles", more)
        assert (await ask("GET", "/api/v1/namespaces/default/secrets")).status == 200
        assert (await ask("POST", CONFIGMAP, configmap("m"))).status == 403
        await bind(world, kind="ClusterRole", name="cluster-admin", binding="ClusterRoleBinding")
        assert (await ask("POST", CONFIGMAP, configmap("m"))).status == 201

    as_ci(tell)


def test_paths_outside_of_the_resources_are_named_by_themselves():
    async def tell(world, ask):
        refused = await ask("GET", "/metrics")
        assert refused.message == f'forbidden: {WHO} get path "/metrics"'
        given = {"verbs": ["get"], "nonResourceURLs": ["/metrics", "/debug/*"]}
        await bind(world, given, kind="ClusterRole", binding="ClusterRoleBinding")
        assert (await ask("GET", "/metrics")).status == 404
        assert (await ask("GET", "/debug/x")).status == 404

    as_ci(tell)


def test_a_binding_to_a_role_that_is_not_there_is_named_in_the_refusal():
    async def tell(world, ask):
        await bind(world, name="gone")
        refused = await ask("GET", POD)
        assert refused.message.endswith(': RBAC: role.rbac.authorization.k8s.io "gone" not found')

    as_ci(tell)


def test_reviews_answer_by_the_same_bindings_and_say_which():
    async def tell(world, ask):
        await bind(world, rule("list", resources=["pods"]))
        wanted = {"verb": "list", "resource": "pods", "namespace": "default"}
        answer = await ask("POST", f"{REVIEWS}/selfsubjectaccessreviews", {"spec": {"resourceAttributes": wanted}})
        why = 'RBAC: allowed by RoleBinding "b-r/default" of Role "r" to ServiceAccount "ci/default"'
        assert answer.body["status"] == {"allowed": True, "reason": why}
        spec = {"user": "system:serviceaccount:default:ci", "resourceAttributes": wanted}
        answer = await world.ask("POST", f"{REVIEWS}/subjectaccessreviews", {"spec": spec})
        assert answer.body["status"] == {"allowed": True, "reason": why}
        answer = await world.ask("POST", f"{REVIEWS}/subjectaccessreviews", {"spec": {**spec, "user": "bob"}})
        assert answer.body["status"] == {"allowed": False}
        rules = await ask("POST", f"{REVIEWS}/selfsubjectrulesreviews", {"spec": {"namespace": "default"}})
        assert rules.body["status"]["resourceRules"][0] == rule("list", resources=["pods"])

    as_ci(tell)


def test_a_user_of_lab_token_may_what_is_bound_to_them_too():
    async def tell(world):
        token = world.server.access.register("alice", ["get:pods"])
        await bind(world, rule("list", resources=["pods"]), subject={"kind": "User", "name": "alice"})
        assert (await world.ask("GET", POD, authorization=f"Bearer {token}")).status == 200
        assert (await world.ask("GET", POD, impersonate_user="alice")).status == 200
        assert (await world.ask("GET", CONFIGMAP, impersonate_user="alice")).status == 403

    story(tell)


def test_acting_as_another_is_a_verb():
    async def tell(world, ask):
        await bind(world, rule("list", resources=["pods"]), subject={"kind": "User", "name": "alice"})
        refused = await ask("GET", POD, impersonate_user="alice")
        assert refused.message.startswith(f'users "alice" is forbidden: {WHO} impersonate resource "users"')
        given = rule("impersonate", resources=["users"], resourceNames=["alice"])
        await bind(world, given, kind="ClusterRole", name="as-alice", binding="ClusterRoleBinding")
        assert (await ask("GET", POD, impersonate_user="alice")).status == 200
        assert (await ask("GET", POD, impersonate_user="bob")).status == 403

    as_ci(tell)


def test_a_token_is_good_while_its_account_and_its_pod_are_there_and_its_time_has_not_run_out():
    async def tell(world):
        await world.create(ACCOUNTS, {"metadata": {"name": "ci"}})
        await world.create(POD, pod("p", serviceAccountName="ci"))
        spec = {"expirationSeconds": 600, "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p"}}
        bound = (await world.create(f"{ACCOUNTS}/ci/token", {"spec": spec}))["status"]["token"]
        free = (await world.create(f"{ACCOUNTS}/ci/token", {"spec": {"expirationSeconds": 600}}))["status"]["token"]

        async def statuses():
            return [(await world.ask("GET", "/version", authorization=f"Bearer {one}")).status for one in (bound, free)]

        assert await statuses() == [200, 200]
        who = (await world.create(TOKENS, {"spec": {"token": bound}}))["status"]
        groups = ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]
        assert who["authenticated"] and who["user"]["username"] == "system:serviceaccount:default:ci"
        assert who["user"]["groups"] == groups
        await world.delete(f"{POD}/p")
        assert await statuses() == [401, 200]
        await asyncio.sleep(601)
        assert await statuses() == [401, 401]

    story(tell)


def test_a_token_of_an_account_that_was_made_anew_is_nobodys():
    async def tell(world, ask):
        assert (await ask("GET", "/version")).status == 200
        await world.delete(f"{ACCOUNTS}/ci")
        await world.create(ACCOUNTS, {"metadata": {"name": "ci"}})
        assert (await ask("GET", "/version")).status == 401

    as_ci(tell)


def test_a_token_for_less_than_ten_minutes_or_for_another_accounts_pod_is_refused():
    async def tell(world, ask):
        await world.create(POD, pod("p"))
        short = await world.ask("POST", f"{ACCOUNTS}/ci/token", {"spec": {"expirationSeconds": 60}})
        assert short.status == 422 and short.message.endswith("may not specify a duration less than 10 minutes")
        ref = {"kind": "Pod", "apiVersion": "v1", "name": "p"}
        other = await world.ask("POST", f"{ACCOUNTS}/ci/token", {"spec": {"boundObjectRef": ref}})
        assert other.message == (
            'cannot bind token for serviceaccount "ci" to pod running with different serviceaccount name.'
        )

    as_ci(tell)
