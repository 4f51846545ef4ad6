"""Stories of kinds that a lab keeps and nothing acts on: HorizontalPodAutoscalers and NetworkPolicies."""

from __future__ import annotations

from typing import Any

from tests.realcluster.twin import MERGE, STRATEGIC, TABLE, Side

TARGET = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
CPU = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}}


def autoscaler(name: str, **spec: Any) -> dict[str, Any]:
    wanted = {"scaleTargetRef": TARGET, "minReplicas": 2, "maxReplicas": 5, "metrics": [CPU], **spec}
    wanted = {key: value for key, value in wanted.items() if value is not None}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name},
        "spec": wanted,
    }


def policy(name: str, **spec: Any) -> dict[str, Any]:
    wanted = {"podSelector": {"matchLabels": {"app": "web"}}, **spec}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": wanted,
    }


def _metric(kind: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, kind[0].lower() + kind[1:]: body}


async def autoscalers(side: Side) -> None:
    """Made, listed, changed, refused."""
    path = f"/apis/autoscaling/v2/namespaces/{side.namespace}/horizontalpodautoscalers"
    await side.ask("POST", path, autoscaler("web"))
    await side.ask("POST", path, autoscaler("least", minReplicas=None, metrics=None))
    rules = {"scaleDown": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}}
    await side.ask("POST", path, autoscaler("rules", behavior=rules))
    value = {"type": "AverageValue", "averageValue": "10"}
    pods = _metric("Pods", {"metric": {"name": "jobs"}, "target": value})
    external = _metric("External", {"metric": {"name": "queue"}, "target": {"type": "Value", "value": "30"}})
    of_object = _metric(
        "Object",
        {"describedObject": {"apiVersion": "v1", "kind": "Service", "name": "web"}, "metric": {"name": "rps"},
         "target": {"type": "Value", "value": "100"}},
    )  # fmt: skip
    inside = {"container": "app", "name": "memory", "target": {"type": "AverageValue", "averageValue": "64Mi"}}
    many = [pods, external, of_object, _metric("ContainerResource", inside)]
    await side.ask("POST", path, autoscaler("many", metrics=many))
    await side.ask("GET", path, accept=TABLE)
    await side.ask("PATCH", f"{path}/web", {"spec": {"maxReplicas": 9}}, kind=MERGE)
    await side.ask("PATCH", f"{path}/web", {"spec": {"minReplicas": 10}}, kind=MERGE)
    status = {"currentReplicas": 2, "desiredReplicas": 3, "currentMetrics": [
        {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 70, "averageValue": "70m"}}}
    ]}  # fmt: skip
    await side.ask("PATCH", f"{path}/web/status", {"status": status}, kind=MERGE)
    await side.ask("GET", path, accept=TABLE)
    for wrong in (
        {"maxReplicas": 0},
        {"maxReplicas": -1},
        {"maxReplicas": 1},
        {"minReplicas": 0},
        {"minReplicas": -1},
        {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "", "name": ""}},
        {"scaleTargetRef": {"kind": "Deployment", "name": "web"}},
        {"metrics": [{"type": "Resource"}]},
        {"metrics": [{"type": "Nonsense"}]},
        {"metrics": [_metric("Resource", {"name": "cpu", "target": {"type": "Utilization"}})]},
        {"metrics": [_metric("Resource", {"name": "", "target": {"type": "Value", "value": "1"}})]},
        {"metrics": [_metric("Pods", {"metric": {"name": ""}, "target": value})]},
        {"behavior": {"scaleUp": {"selectPolicy": "Sometimes"}}},
        {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 4000}}},
        {"behavior": {"scaleDown": {"policies": [{"type": "Pods", "value": 0, "periodSeconds": 60}]}}},
        {"behavior": {"scaleDown": {"policies": [{"type": "Half", "value": 1, "periodSeconds": 9000}]}}},
    ):
        await side.ask("POST", path, autoscaler("wrong", **wrong))
    await side.ask("DELETE", f"{path}/least")


async def policies(side: Side) -> None:
    """Made, listed, changed, refused."""
    path = f"/apis/networking.k8s.io/v1/namespaces/{side.namespace}/networkpolicies"
    await side.ask("POST", path, policy("deny"))
    await side.ask("POST", path, policy("all", podSelector={}, policyTypes=["Ingress", "Egress"]))
    ports = [{"port": 8080}, {"port": "http", "protocol": "TCP"}, {"port": 9000, "endPort": 9010, "protocol": "UDP"}]
    peers = [
        {"podSelector": {"matchLabels": {"role": "front"}}},
        {"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "In", "values": ["a", "b"]}]}},
        {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
    ]
    await side.ask("POST", path, policy("allow", ingress=[{"from": peers, "ports": ports}], egress=[{}]))
    chosen = {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["x"]}], "matchLabels": {"a": "b"}}
    await side.ask("POST", path, policy("chosen", podSelector=chosen))
    await side.ask("GET", path, accept=TABLE)
    await side.ask("PATCH", f"{path}/deny", {"spec": {"podSelector": {"matchLabels": {"app": "new"}}}}, kind=STRATEGIC)
    await side.ask("GET", f"{path}/deny")

    def inside(**rule: Any) -> dict[str, Any]:
        return {"ingress": [rule]}

    for wrong in (
        {"podSelector": {"matchLabels": {"-bad-": "x"}}},
        {"podSelector": {"matchExpressions": [{"key": "a", "operator": "Is", "values": ["x"]}]}},
        {"policyTypes": ["Sideways"]},
        {"policyTypes": ["Ingress", "Egress", "Ingress"]},
        inside(ports=[{"port": 0}]),
        inside(ports=[{"port": "No_Name"}]),
        inside(ports=[{"port": 90, "endPort": 80}]),
        inside(ports=[{"port": "http", "endPort": 80}]),
        inside(ports=[{"endPort": 80}]),
        inside(ports=[{"port": 80, "protocol": "ICMP"}]),
        {"ingress": [{"from": [{}]}]},
        {"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]}]},
        {"ingress": [{"from": [{"ipBlock": {"cidr": ""}}]}]},
        {"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.1"}}]}]},
        {"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}]}]},
        {"egress": [{"to": [{"podSelector": {"matchLabels": {"a": "b c"}}}]}]},
    ):
        await side.ask("POST", path, policy("wrong", **wrong))
    await side.ask("DELETE", f"{path}/deny")


STORIES = (autoscalers, policies)
