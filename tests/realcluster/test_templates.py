"""A template that is sent to a real API server and read back has the name that it was sent under."""

from __future__ import annotations

import asyncio
import copy

import pytest
from tests.realcluster.objects import deployment

from tidegate.kube.api import DEPLOYMENTS
from tidegate.kube.connect import open_api
from tidegate.release import template as templates

pytestmark = pytest.mark.realcluster

PORT = {"containerPort": 8080}


def app(**fields):
    return {"spec": {"containers": [{"name": "app", "image": "app:1", **fields}]}}


def pod(**fields):
    return {"spec": {"containers": [{"name": "app", "image": "app:1"}], **fields}}


TEMPLATES = {
    "plain": app(),
    "probes": app(
        readinessProbe={"httpGet": {"port": 8080}},
        livenessProbe={"grpc": {"port": 8080}, "initialDelaySeconds": 0},
        startupProbe={"tcpSocket": {"port": "http"}, "periodSeconds": 10},
        ports=[{"name": "http", **PORT}],
    ),
    "whole-cores": app(
        resources={"limits": {"cpu": "1000m", "memory": "1024Mi"}, "requests": {"cpu": 1, "memory": "1Gi"}}
    ),
    "parts-of-cores": app(
        resources={"limits": {"cpu": 0.5, "memory": 134217728}, "requests": {"cpu": "0.25", "memory": "0.125Gi"}}
    ),
    "decimal": app(resources={"limits": {"memory": "1000M", "ephemeral-storage": "1e9"}}),
    "values-from": app(
        env=[
            {"name": "A", "value": ""},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "C", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {"name": "D", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1000m"}}},
            {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": False}}},
        ],
        envFrom=[{"configMapRef": {"name": "c"}}],
    ),
    "falses": {
        "spec": {
            "containers": [
                {
                    "name": "app",
                    "image": "app:1",
                    "stdin": False,
                    "tty": False,
                    "volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": False}],
                }
            ],
            "volumes": [{"name": "v", "emptyDir": {}}],
            "hostNetwork": False,
            "hostPID": False,
            "hostIPC": False,
        }
    },
    "security": {
        "spec": {
            "containers": [
                {
                    "name": "app",
                    "image": "app:1",
                    "securityContext": {
                        "privileged": False,
                        "runAsUser": 0,
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }
            ],
            "securityContext": {
                "runAsNonRoot": False,
                "fsGroup": 0,
                "seccompProfile": {"type": "RuntimeDefault"},
                "fsGroupChangePolicy": "OnRootMismatch",
            },
            "automountServiceAccountToken": False,
            "enableServiceLinks": True,
            "serviceAccountName": "default",
        }
    },
    "volumes": pod(
        volumes=[
            {"name": "c", "configMap": {"name": "c"}},
            {"name": "s", "secret": {"secretName": "s", "defaultMode": 0o400}},
            {"name": "h", "hostPath": {"path": "/h"}},
            {"name": "e", "emptyDir": {"sizeLimit": "1024Mi"}},
            {"name": "d", "downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            {
                "name": "p",
                "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}, {"configMap": {"name": "c"}}]},
            },
            {"name": "n", "nfs": {"server": "s", "path": "/", "readOnly": False}},
            {"name": "i", "iscsi": {"targetPortal": "1.2.3.4", "iqn": "iqn.2000-01.a:b", "lun": 0}},
            {"name": "r", "rbd": {"monitors": ["a"], "image": "i"}},
            {"name": "k", "csi": {"driver": "d"}},
        ]
    ),
    "ephemeral-volumes": pod(
        volumes=[
            {
                "name": "e",
                "ephemeral": {
                    "volumeClaimTemplate": {
                        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1024Mi"}}}
                    }
                },
            }
        ]
    ),
    "tolerations-and-affinity": pod(
        tolerations=[{"key": "a", "operator": "Equal", "value": "b", "effect": "NoSchedule"}, {"operator": "Exists"}],
        affinity={
            "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "weight": 100,
                        "podAffinityTerm": {"topologyKey": "z", "labelSelector": {"matchLabels": {"a": "b"}}},
                    }
                ]
            }
        },
        topologySpreadConstraints=[
            {
                "maxSkew": 1,
                "topologyKey": "z",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {"app": "web"}},
            }
        ],
    ),
    "sidecars": {
        "spec": {
            "initContainers": [
                {"name": "init", "image": "init"},
                {
                    "name": "side",
                    "image": "side@sha256:" + "0" * 64,
                    "restartPolicy": "Always",
                    "startupProbe": {"exec": {"command": ["true"]}},
                },
            ],
            "containers": [
                {"name": "app", "image": "app:1"},
                {"name": "two", "image": "registry:5000/two", "ports": [PORT]},
            ],
        }
    },
    "host-network": pod(
        hostNetwork=True, dnsPolicy="ClusterFirstWithHostNet", hostAliases=[{"ip": "1.2.3.4", "hostnames": ["a"]}]
    ),
    "hooks": app(lifecycle={"postStart": {"httpGet": {"port": 80}}, "preStop": {"exec": {"command": ["sleep", "5"]}}}),
    "hook-of-its-own": app(lifecycle={"preStop": {"httpGet": {"port": 80, "path": "/bye"}}}),
    "grace": pod(terminationGracePeriodSeconds=0, activeDeadlineSeconds=None),
    "names": pod(
        nodeSelector={"a": "b"},
        priorityClassName="",
        hostname="h",
        subdomain="s",
        dnsConfig={"options": [{"name": "ndots", "value": "2"}]},
    ),
    "empties": pod(
        volumes=[],
        tolerations=[],
        affinity={},
        securityContext={},
        imagePullSecrets=[{"name": "x"}],
        overhead={},
        nodeSelector={},
        os={"name": "linux"},
    ),
    "notes": {"metadata": {"annotations": {"a": "", "b": "1"}, "creationTimestamp": None}, **app()},
    "host-network-ports": {
        "spec": {"hostNetwork": True, "containers": [{"name": "app", "image": "app:1", "ports": [PORT]}]}
    },
    "old-account": pod(serviceAccount="default"),
    "zeros": app(
        livenessProbe={"tcpSocket": {"port": 1}, "periodSeconds": 0, "timeoutSeconds": 0, "failureThreshold": 0},
        ports=[{**PORT, "hostPort": 0}],
        resources={"requests": {"cpu": 0}},
    ),
    "env-of-falses": app(env=[{"name": "A", "value": "false"}], args=[], command=["x", ""]),
}


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_a_template_read_back_has_the_name_it_was_sent_under(real_cluster, name):
    template = copy.deepcopy(TEMPLATES[name])
    template.setdefault("metadata", {})["labels"] = {"app": "web"}

    async def story():
        async with open_api(kubeconfig=str(real_cluster.kubeconfig)) as api:
            made = deployment(f"t-{name}", replicas=0, template=template)
            obj = await api.create(DEPLOYMENTS, made, "default")
            back = obj["spec"]["template"]
            assert templates._plain(templates._authored(back)) == templates._plain(templates._authored(template))
            assert templates.fingerprint(back) == templates.fingerprint(template)

    asyncio.run(story())
