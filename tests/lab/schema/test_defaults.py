"""Defaults a real 1.36 server shows in ``get -o yaml``."""

from __future__ import annotations

import copy

import pytest

from tidegate.lab.apiserver.schema import defaults
from tidegate.lab.apiserver.schema.quantity import canonical, parse


def defaulted(kind, **fields):
    obj = {"kind": kind, "metadata": {"name": "x"}, **fields}
    defaults.apply(kind, obj)
    return obj


def template(**container):
    return {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1", **container}]}}


def test_a_deployment_rolls_a_quarter_at_a_time():
    spec = defaulted("Deployment", spec={"template": template()})["spec"]
    assert spec["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"},
    }
    assert (spec["replicas"], spec["revisionHistoryLimit"], spec["progressDeadlineSeconds"]) == (1, 10, 600)


def test_a_recreate_deployment_gets_no_rolling_update():
    spec = defaulted("Deployment", spec={"template": template(), "strategy": {"type": "Recreate"}})["spec"]
    assert spec["strategy"] == {"type": "Recreate"}


def test_a_template_gets_the_pods_defaults_but_not_service_links():
    spec = defaulted("Deployment", spec={"template": template()})["spec"]["template"]["spec"]
    assert spec == {
        "containers": [
            {
                "name": "c",
                "image": "i:1",
                "imagePullPolicy": "IfNotPresent",
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
            }
        ],
        "dnsPolicy": "ClusterFirst",
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "terminationGracePeriodSeconds": 30,
    }


def test_a_pod_requests_what_it_is_limited_to():
    limits = {"cpu": "0.5", "memory": "1Gi"}
    containers = [{"name": "c", "image": "i", "resources": {"limits": limits, "requests": {"cpu": "100m"}}}]
    spec = defaulted("Pod", spec={"containers": containers})["spec"]
    assert spec["enableServiceLinks"] is True
    assert spec["containers"][0]["resources"] == {
        "limits": {"cpu": "500m", "memory": "1Gi"},
        "requests": {"cpu": "100m", "memory": "1Gi"},
    }


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("img", "Always"),
        ("img:latest", "Always"),
        ("img:1", "IfNotPresent"),
        ("host:5000/img", "Always"),
        ("img@sha256:abc", "IfNotPresent"),
    ],
)
def test_images_without_a_tag_are_always_pulled(image, policy):
    containers = [{"name": "c", "image": image}]
    assert defaulted("Pod", spec={"containers": containers})["spec"]["containers"][0]["imagePullPolicy"] == policy


def test_probes_and_hooks_get_their_numbers_and_paths():
    hook = {"httpGet": {"port": 15299, "path": "/gate/c"}}
    container = template(readinessProbe={"httpGet": {"port": 80}}, lifecycle={"preStop": hook})
    made = defaulted("Deployment", spec={"template": container})["spec"]["template"]["spec"]["containers"][0]
    assert made["readinessProbe"] == {
        "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
        "timeoutSeconds": 1,
        "periodSeconds": 10,
        "successThreshold": 1,
        "failureThreshold": 3,
    }
    assert made["lifecycle"]["preStop"]["httpGet"] == {"port": 15299, "path": "/gate/c", "scheme": "HTTP"}


def test_a_service_targets_its_own_port_within_the_cluster():
    spec = defaulted("Service", spec={"ports": [{"port": 80}]})["spec"]
    assert spec == {
        "type": "ClusterIP",
        "sessionAffinity": "None",
        "internalTrafficPolicy": "Cluster",
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
    }
    assert defaulted("Service", spec={"type": "NodePort"})["spec"]["externalTrafficPolicy"] == "Cluster"
    assert "internalTrafficPolicy" not in defaulted("Service", spec={"type": "ExternalName"})["spec"]


def test_a_namespace_carries_its_name_as_a_label():
    assert defaulted("Namespace")["metadata"]["labels"] == {"kubernetes.io/metadata.name": "x"}


def test_secret_strings_become_data():
    secret = defaulted("Secret", stringData={"a": "b"}, data={"z": "eg=="})
    assert secret["data"] == {"z": "eg==", "a": "Yg=="}
    assert "stringData" not in secret
    assert secret["type"] == "Opaque"


def test_defaulting_twice_changes_nothing():
    for kind in sorted(defaults.KINDS):
        once = defaulted(kind, spec={"template": template()})
        twice = copy.deepcopy(once)
        defaults.apply(kind, twice)
        assert twice == once


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("0.5", "500m"),
        ("1", "1"),
        (2, "2"),
        ("1000m", "1"),
        ("1500m", "1500m"),
        ("1024Ki", "1Mi"),
        ("1536Mi", "1536Mi"),
        ("0.5Gi", "512Mi"),
        ("100M", "100M"),
        ("1e3", "1e3"),
        ("0", "0"),
        ("1000k", "1M"),
        ("much", "much"),
    ],
)
def test_quantities_are_spelled_as_the_server_spells_them(written, shown):
    assert canonical(written) == shown


def test_quantities_have_a_value():
    assert parse("1Ki") == 1024
    assert parse("100m") * 10 == 1
    for bad in ("", "1x", "--1", True):
        with pytest.raises(ValueError, match="quantities must match"):
            parse(bad)
