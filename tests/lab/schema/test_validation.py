"""What is refused, and in which words: sentences in quotes were printed by a real 1.36 server."""

from __future__ import annotations

import copy

import pytest

from tidegate.kube.api import DEPLOYMENTS, SERVICES
from tidegate.lab.apiserver.schema import defaults
from tidegate.lab.apiserver.schema.validation import invalid, validate


def container(**more):
    return {"name": "c", "image": "x:1", **more}


def pod(**spec):
    spec = {"containers": [container()], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "d"}, "spec": spec}


def workload(kind="Deployment", **spec):
    labels = {"app": "web"}
    spec = {
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [container()]}},
        **spec,
    }
    metadata = {"name": "web", "namespace": "d"}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": spec}


def service(*ports, **spec):
    listed = list(ports) or [{"port": 80}]
    spec = {"selector": {"app": "web"}, "ports": listed, **spec}
    metadata = {"name": "web", "namespace": "d"}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def problems(obj, old=None):
    obj = copy.deepcopy(obj)
    defaults.apply(obj["kind"], obj)
    if old is not None:
        old = copy.deepcopy(old)
        defaults.apply(old["kind"], old)
    return [cause.text for cause in validate(obj["kind"], obj, old)]


def named(kind, name, **more):
    return {"kind": kind, "metadata": {"name": name}, **more}


@pytest.mark.parametrize(
    "obj",
    [
        pod(),
        workload(),
        workload("ReplicaSet"),
        workload("DaemonSet"),
        workload("StatefulSet", serviceName="web"),
        service(),
        service(clusterIP="None"),
        service({"port": 1, "name": "a"}, {"port": 1, "name": "b", "protocol": "UDP"}),
        named("ConfigMap", "c", data={"a.b": "1"}),
        named("Secret", "s", data={"a": "Yg=="}),
        named("Namespace", "ns"),
        named("Service", "1x", spec={"ports": [{"port": 1}]}),
        named("ClusterRole", "system:x", rules=[{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]),
        named("Lease", "l", spec={"leaseDurationSeconds": 40}),
    ],
    ids=lambda obj: obj["kind"],
)
def test_ordinary_objects_are_accepted(obj):
    assert problems(obj) == []


def test_a_bad_namespace_name_is_explained_with_the_pattern():
    assert problems(named("Namespace", "Bad_Name")) == [
        'metadata.name: Invalid value: "Bad_Name": a lowercase RFC 1123 label must consist of lower case '
        "alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. "
        "'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
    ]


def test_a_template_must_carry_what_the_selector_asks():
    obj = workload(selector={"matchLabels": {"a": "b"}})
    obj["spec"]["template"]["metadata"]["labels"] = {"a": "c"}
    assert problems(obj) == [
        'spec.template.metadata.labels: Invalid value: {"a":"c"}: `selector` does not match template `labels`'
    ]


def test_a_changed_selector_is_two_causes_in_the_real_order():
    changed = workload(selector={"matchLabels": {"app": "other"}})
    assert problems(changed, workload()) == [
        'spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `labels`',
        'spec.selector: Invalid value: {"matchLabels":{"app":"other"}}: field is immutable',
    ]


def test_a_cluster_ip_may_not_change_once_set():
    old = service(clusterIP="10.96.0.1", clusterIPs=["10.96.0.1"])
    new = service(clusterIP="10.96.0.99", clusterIPs=["10.96.0.1"])
    assert problems(new, old) == ['spec.clusterIPs[0]: Invalid value: ["10.96.0.99"]: may not change once set']


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        ([{"port": 99999}], "spec.ports[0].port: Invalid value: 99999: must be between 1 and 65535, inclusive"),
        ([{"port": 1}, {"port": 2}], "spec.ports[0].name: Required value"),
        ([{"port": 1, "protocol": "ICMP"}],
         'spec.ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"'),
        ([{"port": 1, "name": "a"}, {"port": 2, "name": "a"}], 'spec.ports[1].name: Duplicate value: "a"'),
        ([{"port": 1, "nodePort": 30000}],
         "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"),
        ([{"port": 1, "name": "a"}, {"port": 1, "name": "b"}],
         'spec.ports[1]: Duplicate value: {"Name":"","Protocol":"TCP","AppProtocol":null,"Port":1,"TargetPort":0,'
         '"NodePort":0}'),
    ],
)  # fmt: skip
def test_service_ports_are_checked(ports, expected):
    assert expected in problems(service(*ports))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"containers": []}, "spec.containers: Required value"),
        ({"containers": [container(name="")]}, "spec.containers[0].name: Required value"),
        ({"containers": [container(image="")]}, "spec.containers[0].image: Required value"),
        ({"containers": [container(), container()]}, 'spec.containers[1].name: Duplicate value: "c"'),
        ({"containers": [container(ports=[{"containerPort": 0}])]},
         "spec.containers[0].ports[0].containerPort: Required value"),
        ({"containers": [container(ports=[{"containerPort": 70000}])]},
         "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"),
        ({"containers": [container(lifecycle={"preStop": {}})]},
         "spec.containers[0].lifecycle.preStop: Required value: must specify a handler type"),
        ({"containers": [container(readinessProbe={"httpGet": {"port": 80}, "exec": {"command": ["a"]}})]},
         "spec.containers[0].readinessProbe.httpGet: Forbidden: may not specify more than 1 handler type"),
        ({"containers": [container(livenessProbe={"tcpSocket": {"port": 1}, "successThreshold": 2})]},
         "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1"),
        ({"containers": [container(volumeMounts=[{"name": "v", "mountPath": "/v"}])]},
         'spec.containers[0].volumeMounts[0].name: Not found: "v"'),
        ({"containers": [container(resources={"limits": {"cpu": "1"}, "requests": {"cpu": "2"}})]},
         'spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1'),
        ({"restartPolicy": "Sometimes"},
         'spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"'),
        ({"containers": [container(lifecycle={"preStop": {"sleep": {"seconds": 31}}})]},
         "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: "
         "must be non-negative and less than terminationGracePeriodSeconds (30)"),
    ],
)  # fmt: skip
def test_pod_specs_are_checked(change, expected):
    assert expected in problems(pod(**change))


def test_pods_of_a_template_are_checked_at_the_templates_path():
    obj = workload()
    obj["spec"]["template"]["spec"] = {"containers": [container(image="")], "restartPolicy": "Never"}
    assert problems(obj) == [
        "spec.template.spec.containers[0].image: Required value",
        'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"',
    ]


def test_a_rolling_update_must_be_able_to_move():
    obj = workload(strategy={"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}})
    path = "spec.strategy.rollingUpdate.maxUnavailable"
    assert problems(obj) == [f'{path}: Invalid value: "0%": may not be 0 when `maxSurge` is 0']


def test_a_running_pod_may_change_its_image_and_little_else():
    assert problems(pod(containers=[container(image="y:2")]), pod()) == []
    refused = problems(pod(containers=[container(command=["new"])]), pod())
    assert refused[0].startswith("spec: Forbidden: pod updates may not change fields other than")
    refused = problems(pod(containers=[container(), container(name="d")]), pod())
    assert refused == ["spec.containers: Forbidden: pod updates may not add or remove containers"]


def test_a_name_is_needed():
    assert problems(named("ConfigMap", "")) == ["metadata.name: Required value: name or generateName is required"]
    assert problems({"kind": "ConfigMap", "metadata": {"generateName": "a-", "name": "a-x"}}) == []


def test_label_keys_and_values_are_checked():
    obj = pod()
    obj["metadata"]["labels"] = {"-bad": "ok", "fine": "not fine"}
    found = problems(obj)
    assert found[0].startswith('metadata.labels: Invalid value: "-bad": name part must consist of')
    assert found[1].startswith('metadata.labels: Invalid value: "not fine": a valid label must be')


def test_immutable_content_stays():
    old = named("ConfigMap", "c", data={"a": "1"}, immutable=True)
    new = named("ConfigMap", "c", data={"a": "2"}, immutable=True)
    assert problems(new, old) == ["data: Forbidden: field is immutable when `immutable` is set"]


def test_a_disruption_budget_has_one_bound():
    obj = named("PodDisruptionBudget", "p", spec={"minAvailable": 1, "maxUnavailable": 1})
    assert problems(obj) == [
        'spec: Invalid value: {"MinAvailable":1,"Selector":null,"MaxUnavailable":1,"UnhealthyPodEvictionPolicy":null}: '
        "minAvailable and maxUnavailable cannot be both set"
    ]


def test_no_finalizer_joins_an_object_that_is_leaving():
    old = pod()
    old["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a/b"]}
    new = copy.deepcopy(old)
    new["metadata"]["finalizers"].append("c/d")
    assert problems(new, old) == [
        "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, "
        'found new finalizers []string{"c/d"}'
    ]


def test_one_cause_is_told_plainly_and_several_in_brackets():
    error = invalid(SERVICES, "web", validate("Service", {"metadata": {"name": "web"}, "spec": {}}, None))
    assert error.message == 'Service "web" is invalid: spec.ports: Required value'
    assert (error.code, error.reason) == (422, "Invalid")
    assert error.status["details"] == {
        "name": "web",
        "kind": "Service",
        "causes": [{"reason": "FieldValueRequired", "message": "Required value", "field": "spec.ports"}],
    }
    empty = {"metadata": {"name": "web"}, "spec": {"strategy": {"type": "Recreate"}}}
    error = invalid(DEPLOYMENTS, "web", validate("Deployment", empty, None))
    assert error.message == (
        'Deployment.apps "web" is invalid: [spec.selector: Required value, spec.template: Required value]'
    )
    assert error.status["details"]["group"] == "apps"


def test_a_crd_is_named_by_its_plural_and_group():
    spec = {
        "group": "x.org",
        "scope": "Namespaced",
        "names": {"plural": "gizmos", "kind": "Gizmo"},
        "versions": [{"name": "v1", "served": True, "storage": True}],
    }
    crd = named("CustomResourceDefinition", "wrong.x.org", spec=spec)
    assert problems(crd) == ['metadata.name: Invalid value: "wrong.x.org": must be spec.names.plural+"."+spec.group']
