"""The tables kubectl prints: rows in comments and expectations are a real 1.36 server's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tidegate.lab.apiserver.schema.human import human_duration
from tidegate.lab.apiserver.schema.tables import Options, table

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


def ago(**parts):
    return (NOW - timedelta(**parts)).strftime("%Y-%m-%dT%H:%M:%SZ")


def named(name="x", **metadata):
    return {"name": name, "creationTimestamp": ago(seconds=30), **metadata}


def printed(kind, obj, *, wide=False):
    """Header and row as kubectl lays them out, cells apart by two spaces."""
    made = table(kind, [{"kind": kind, "metadata": named(), **obj}], NOW)
    shown = [i for i, column in enumerate(made["columnDefinitions"]) if wide or not column["priority"]]
    header = "  ".join(made["columnDefinitions"][i]["name"].upper() for i in shown)
    return header, "  ".join(str(made["rows"][0]["cells"][i]) for i in shown)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"), (-1, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (121, "2m1s"), (599, "9m59s"),
        (600, "10m"), (10799, "179m"), (10800, "3h"), (3600 * 7 + 120, "7h2m"), (3600 * 8, "8h"),
        (3600 * 47, "47h"), (3600 * 48, "2d"), (3600 * 49, "2d1h"), (86400 * 8, "8d"), (86400 * 729, "729d"),
        (86400 * 730, "2y"), (86400 * 800, "2y70d"), (86400 * 365 * 8, "8y"), (86400 * 365 * 9 + 86400, "9y"),
    ],
)  # fmt: skip
def test_durations_are_told_as_kubectl_tells_them(seconds, text):
    assert human_duration(seconds) == text


def container(name="c", ready=True, restarts=0, state=None, last=None):
    made = {"name": name, "ready": ready, "restartCount": restarts, "state": state or {"running": {}}}
    return made | ({"lastState": last} if last else {})


def pod(statuses=(), *, phase="Running", metadata=None, init=(), init_specs=(), **status):
    containers = [{"name": status["name"]} for status in statuses] or [{"name": "c"}]
    return {
        "metadata": metadata or named(),
        "spec": {"containers": containers, "initContainers": list(init_specs), "nodeName": "node-1"},
        "status": {
            "phase": phase,
            "containerStatuses": list(statuses),
            "initContainerStatuses": list(init),
            "podIP": "127.17.1.2",
            **status,
        },
    }


def ended(code, reason="", **more):
    return {"terminated": {"exitCode": code, **({"reason": reason} if reason else {}), **more}}


READY = [{"type": "Ready", "status": "True"}]
LEAVING = named(deletionTimestamp=ago(seconds=1))
SIDECAR = {"name": "s", "restartPolicy": "Always"}
POD_STATES = {
    "running": (pod([container()]), "1/1  Running  0"),
    "pending": (pod(phase="Pending"), "0/1  Pending  0"),
    "not ready": (pod([container(ready=False)]), "0/1  Running  0"),
    "creating": (
        pod([container(ready=False, state={"waiting": {"reason": "ContainerCreating"}})], phase="Pending"),
        "0/1  ContainerCreating  0",
    ),
    "crashing": (
        pod(
            [
                container(
                    ready=False,
                    restarts=3,
                    state={"waiting": {"reason": "CrashLoopBackOff"}},
                    last=ended(1, "Error", finishedAt=ago(seconds=5)),
                )
            ]
        ),
        "0/1  CrashLoopBackOff  3 (5s ago)",
    ),
    "restarted": (
        pod([container(restarts=1, last=ended(1, finishedAt=ago(minutes=3)))]),
        "1/1  Running  1 (3m ago)",
    ),
    "completed": (pod([container(ready=False, state=ended(0, "Completed"))], phase="Succeeded"), "0/1  Completed  0"),
    "failed": (pod([container(ready=False, state=ended(2, "Error"))], phase="Failed"), "0/1  Error  0"),
    "exit code only": (pod([container(ready=False, state=ended(3))], phase="Failed"), "0/1  ExitCode:3  0"),
    "killed": (pod([container(ready=False, state=ended(0, signal=9))], phase="Failed"), "0/1  Signal:9  0"),
    "terminating": (pod([container()], metadata=LEAVING), "1/1  Terminating  0"),
    "terminating and done": (
        pod([container(ready=False, state=ended(0, "Completed"))], phase="Succeeded", metadata=LEAVING),
        "0/1  Completed  0",
    ),
    "lost": (pod([container()], metadata=LEAVING, reason="NodeLost"), "1/1  Unknown  0"),
    "evicted": (pod(phase="Failed", reason="Evicted"), "0/1  Evicted  0"),
    "gated": (
        pod(phase="Pending", conditions=[{"type": "PodScheduled", "reason": "SchedulingGated"}]),
        "0/1  SchedulingGated  0",
    ),
    "one done, one running": (
        pod([container("a"), container("b", ready=False, state=ended(0, "Completed"))], conditions=READY),
        "1/2  Running  0",
    ),
    "first done": (
        pod([container("a", ready=False, state=ended(0, "Completed")), container("b")], conditions=READY),
        "1/2  Running  0",
    ),
    "first done, not ready": (
        pod([container("a", ready=False, state=ended(0, "Completed")), container("b")]),
        "1/2  NotReady  0",
    ),
    "initialising": (
        pod(
            [container(ready=False, state={"waiting": {"reason": "PodInitializing"}})],
            phase="Pending",
            init=[container("i", state=ended(0, "Completed")), container("j", ready=False)],
            init_specs=[{"name": "i"}, {"name": "j"}],
        ),
        "0/1  Init:1/2  0",
    ),
    "init failed": (
        pod(phase="Pending", init=[container("i", ready=False, state=ended(1, "Error"))], init_specs=[{"name": "i"}]),
        "0/1  Init:Error  0",
    ),
    "init crashing": (
        pod(
            phase="Pending",
            init=[container("i", ready=False, restarts=2, state={"waiting": {"reason": "CrashLoopBackOff"}})],
            init_specs=[{"name": "i"}],
        ),
        "0/1  Init:CrashLoopBackOff  2",
    ),
    "sidecar": (
        pod([container()], init=[container("s") | {"started": True}], init_specs=[SIDECAR]),
        "2/2  Running  0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("state", POD_STATES)
def test_a_pods_status_is_worked_out_as_kubectl_works_it_out(state):
    obj, expected = POD_STATES[state]
    header, row = printed("Pod", obj)
    assert header == "NAME  READY  STATUS  RESTARTS  AGE"
    assert row == f"x  {expected}  30s"


def test_wide_pods_show_address_node_and_gates():
    header, row = printed("Pod", pod([container()]), wide=True)
    assert header.endswith("IP  NODE  NOMINATED NODE  READINESS GATES")
    assert row.endswith("127.17.1.2  node-1  <none>  <none>")
    gated = pod([container()], conditions=[{"type": "a/b", "status": "True"}])
    gated["spec"]["readinessGates"] = [{"conditionType": "a/b"}, {"conditionType": "c/d"}]
    assert printed("Pod", gated, wide=True)[1].endswith("1/2")


SPEC = {
    "replicas": 2,
    "selector": {"matchLabels": {"pod-template-hash": "h", "app": "web"}},
    "template": {"spec": {"containers": [{"name": "c", "image": "i:1"}, {"name": "d", "image": "j:1"}]}},
}
KINDS = {
    "Deployment": (
        {"spec": SPEC, "status": {"readyReplicas": 2, "updatedReplicas": 2, "availableReplicas": 1}},
        "NAME  READY  UP-TO-DATE  AVAILABLE  AGE  CONTAINERS  IMAGES  SELECTOR",
        "x  2/2  2  1  30s  c,d  i:1,j:1  app=web,pod-template-hash=h",
    ),
    "ReplicaSet": (
        {"spec": SPEC, "status": {"replicas": 2}},
        "NAME  DESIRED  CURRENT  READY  AGE  CONTAINERS  IMAGES  SELECTOR",
        "x  2  2  0  30s  c,d  i:1,j:1  app=web,pod-template-hash=h",
    ),
    "StatefulSet": (
        {"spec": SPEC, "status": {"readyReplicas": 1}},
        "NAME  READY  AGE  CONTAINERS  IMAGES",
        "x  1/2  30s  c,d  i:1,j:1",
    ),
    "DaemonSet": (
        {"spec": SPEC, "status": {"desiredNumberScheduled": 3}},
        "NAME  DESIRED  CURRENT  READY  UP-TO-DATE  AVAILABLE  NODE SELECTOR  AGE  CONTAINERS  IMAGES  SELECTOR",
        "x  3  0  0  0  0  <none>  30s  c,d  i:1,j:1  app=web,pod-template-hash=h",
    ),
    "Service": (
        {"spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "selector": {"app": "web"},
                  "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}]}},
        "NAME  TYPE  CLUSTER-IP  EXTERNAL-IP  PORT(S)  AGE  SELECTOR",
        "x  NodePort  10.0.0.1  <none>  80:30080/TCP  30s  app=web",
    ),
    "EndpointSlice": (
        {"addressType": "IPv4", "ports": [{"port": 8080}],
         "endpoints": [{"addresses": [f"10.0.0.{i}"]} for i in range(5)]},
        "NAME  ADDRESSTYPE  PORTS  ENDPOINTS  AGE",
        "x  IPv4  8080  10.0.0.0,10.0.0.1,10.0.0.2 + 2 more...  30s",
    ),
    "Endpoints": (
        {"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}, {"port": 81}]}]},
        "NAME  ENDPOINTS  AGE",
        "x  10.0.0.1:80,10.0.0.1:81  30s",
    ),
    "Node": (
        {"spec": {"unschedulable": True}, "status": {
            "conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1.36.2"},
            "addresses": [{"type": "InternalIP", "address": "127.16.0.11"}]}},
        "NAME  STATUS  ROLES  AGE  VERSION  INTERNAL-IP  EXTERNAL-IP  OS-IMAGE  KERNEL-VERSION  CONTAINER-RUNTIME",
        "x  Ready,SchedulingDisabled  <none>  30s  v1.36.2  127.16.0.11  <none>  <unknown>  <unknown>  <unknown>",
    ),
    "Namespace": ({"status": {"phase": "Active"}}, "NAME  STATUS  AGE", "x  Active  30s"),
    "Secret": ({"type": "Opaque", "data": {"a": "Yg=="}}, "NAME  TYPE  DATA  AGE", "x  Opaque  1  30s"),
    "ServiceAccount": ({}, "NAME  AGE", "x  30s"),
    "PodDisruptionBudget": (
        {"spec": {"minAvailable": 2}, "status": {"disruptionsAllowed": 0}},
        "NAME  MIN AVAILABLE  MAX UNAVAILABLE  ALLOWED DISRUPTIONS  AGE",
        "x  2  N/A  0  30s",
    ),
    "HorizontalPodAutoscaler": (
        {"spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "minReplicas": 1, "maxReplicas": 3,
                  "metrics": [{"type": "Resource", "resource": {
                      "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}]}},
        "NAME  REFERENCE  TARGETS  MINPODS  MAXPODS  REPLICAS  AGE",
        "x  Deployment/web  cpu: <unknown>/50%  1  3  0  30s",
    ),
    "Gizmo": ({}, "NAME  AGE", "x  30s"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_its_columns(kind):
    obj, header, row = KINDS[kind]
    assert printed(kind, obj, wide=True) == (header, row)


@pytest.mark.parametrize(
    ("spec", "cells"),
    [
        (
            {"type": "ClusterIP", "clusterIP": "None", "ports": [{"port": 80, "protocol": "TCP"}]},
            "None  <none>  80/TCP",
        ),
        ({"type": "ExternalName", "externalName": "example.org"}, "<none>  example.org  <none>"),
        ({"type": "LoadBalancer", "clusterIP": "10.0.0.1", "ports": []}, "10.0.0.1  <pending>  <none>"),
    ],
)
def test_services_show_how_they_are_reached(spec, cells):
    assert printed("Service", {"spec": spec})[1] == f"x  {spec['type']}  {cells}  30s"


def test_events_show_when_they_were_last_seen():
    event = {
        "firstTimestamp": ago(minutes=9), "lastTimestamp": ago(seconds=7), "count": 4, "type": "Normal",
        "reason": "Started", "message": "Container started\n", "source": {"component": "kubelet", "host": "node-1"},
        "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{c}"},
    }  # fmt: skip
    header, row = printed("Event", event)
    assert header == "LAST SEEN  TYPE  REASON  OBJECT  MESSAGE"
    assert row == "7s  Normal  Started  pod/p  Container started"
    assert "spec.containers{c}  kubelet, node-1" in printed("Event", event, wide=True)[1]
    series = {"eventTime": ago(minutes=9), "series": {"count": 9, "lastObservedTime": ago(seconds=3)}}
    assert printed("Event", series)[1].startswith("3s")


def test_rows_carry_what_the_client_asked_to_include():
    obj = {"kind": "Namespace", "metadata": named(labels={"a": "b"}), "spec": {}}
    row = table("Namespace", [obj], NOW)["rows"][0]
    assert row["object"] == {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": obj["metadata"],
    }
    assert table("Namespace", [obj], NOW, Options("Object"))["rows"][0]["object"] is obj
    assert table("Namespace", [obj], NOW, Options("None"))["rows"][0]["object"] is None
    assert table("Namespace", [], NOW, Options("None", "v1beta1"))["apiVersion"] == "meta.k8s.io/v1beta1"
