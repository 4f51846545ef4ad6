"""HorizontalPodAutoscalers and NetworkPolicies: kept, shown, changed, and refused where they make no sense."""

from __future__ import annotations

import pytest

from .api_world import MERGE, TABLE, story

AUTOSCALER = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers"
POLICY = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"


def autoscaler(**spec):
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    return {"metadata": {"name": "web"}, "spec": {"scaleTargetRef": target, "maxReplicas": 5, **spec}}


def policy(**spec):
    return {"metadata": {"name": "web"}, "spec": {"podSelector": {"matchLabels": {"app": "web"}}, **spec}}


def table(world, path):
    return world.ask("GET", path, accept=TABLE)


def test_an_autoscaler_is_defaulted_shown_and_changed():
    async def tell(world):
        made = await world.create(AUTOSCALER, autoscaler())
        assert (made["spec"]["minReplicas"], made["spec"]["metrics"][0]["resource"]["name"]) == (1, "cpu")
        await world.ask("PATCH", f"{AUTOSCALER}/web", {"spec": {"maxReplicas": 9}}, content_type=MERGE)
        shown = (await table(world, AUTOSCALER)).body
        assert [one["name"] for one in shown["columnDefinitions"]] == [
            "Name", "Reference", "Targets", "MinPods", "MaxPods", "Replicas", "Age",
        ]  # fmt: skip
        assert shown["rows"][0]["cells"][:6] == ["web", "Deployment/web", "cpu: <unknown>/80%", "1", 9, 0]

    story(tell)


def test_a_policy_is_defaulted_shown_and_changed():
    async def tell(world):
        made = await world.create(POLICY, policy(egress=[{}]))
        assert made["spec"]["policyTypes"] == ["Ingress", "Egress"]
        changed = {"spec": {"podSelector": {"matchLabels": {"app": "api"}}}}
        await world.ask("PATCH", f"{POLICY}/web", changed, content_type=MERGE)
        shown = (await table(world, POLICY)).body
        assert [one["name"] for one in shown["columnDefinitions"]] == ["Name", "Pod-Selector", "Age"]
        assert shown["rows"][0]["cells"][:2] == ["web", "app=api"]

    story(tell)


@pytest.mark.parametrize(
    ("path", "body", "complaint"),
    [
        (AUTOSCALER, autoscaler(minReplicas=6), "spec.maxReplicas: Invalid value: 5: must be greater than or equal to"),
        (AUTOSCALER, autoscaler(maxReplicas=0), "spec.maxReplicas: Required value: must be set and greater than 0"),
        (AUTOSCALER, autoscaler(scaleTargetRef={"kind": "Deployment", "name": "web"}), "apiVersion must specify API"),
        (AUTOSCALER, autoscaler(metrics=[{"type": "Pods"}]), "spec.metrics[0].pods: Required value: must populate"),
        (AUTOSCALER, autoscaler(behavior={"scaleUp": {"policies": []}}), "must specify at least one Policy"),
        (POLICY, policy(policyTypes=["Sideways"]), 'Unsupported value: "Sideways": supported values: "Ingress"'),
        (POLICY, policy(ingress=[{"from": [{}]}]), "spec.ingress[0].from[0]: Required value: must specify a peer"),
        (POLICY, policy(egress=[{"ports": [{"port": 0}]}]), "must be between 1 and 65535, inclusive"),
        (POLICY, policy(ingress=[{"from": [{"ipBlock": {"cidr": "10.0.0.1"}}]}]), "must be a valid CIDR value"),
    ],
)
def test_what_makes_no_sense_is_refused_in_kubernetes_words(path, body, complaint):
    async def tell(world):
        refused = await world.ask("POST", path, body)
        assert (refused.status, refused.reason) == (422, "Invalid")
        assert complaint in refused.message

    story(tell)
