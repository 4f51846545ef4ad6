"""Unknown, repeated and mistyped fields."""

from __future__ import annotations

import pytest

from tidegate.lab.apiserver.schema import strict


def deployment(**spec):
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec}


def test_unknown_fields_are_named_by_their_path():
    container = {"name": "c", "lifecycle": {"preStopp": {}, "preStop": {"exec": {"command": ["x"]}}}}
    obj = deployment(templte={}, template={"spec": {"containers": [container]}}, replicas=0)
    assert strict.unknown_fields("Deployment", obj) == [
        'unknown field "spec.templte"',
        'unknown field "spec.template.spec.containers[0].lifecycle.preStopp"',
    ]


def test_free_form_maps_and_custom_resources_have_no_unknown_fields():
    config = {"metadata": {"labels": {"any": "x"}, "annotations": {"thing": "y"}}, "data": {"whatever": "1"}}
    assert strict.unknown_fields("ConfigMap", config) == []
    assert strict.unknown_fields("Gizmo", {"spec": {"colour": "red"}}) == []


def test_pruning_drops_what_go_would_not_decode():
    obj = deployment(templte={}, replicas=None, template={"metadata": {"creationTimestamp": None}})
    strict.prune("Deployment", obj)
    assert obj["spec"] == {"template": {"metadata": {}}}
    gizmo = {"spec": {"x": None}}
    strict.prune("Gizmo", gizmo)
    assert gizmo == {"spec": {"x": None}}


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"replicas": "3"},
         "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"),
        ({"paused": 1}, "json: cannot unmarshal number into Go struct field DeploymentSpec.spec.paused of type bool"),
        ({"replicas": True},
         "json: cannot unmarshal bool into Go struct field DeploymentSpec.spec.replicas of type int32"),
        ({"template": {"spec": {"containers": {}}}},
         "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type "
         "[]v1.Container"),
        ({"template": {"spec": {"containers": [{"resources": {"limits": {"cpu": "much"}}}]}}},
         "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"),
        ({"strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}}}, ""),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_type_is_told_as_go_tells_it(spec, sentence):
    assert strict.mismatch("Deployment", deployment(**spec)) == sentence


def test_keys_given_twice_are_found_at_any_depth():
    body = b'{"spec":{"replicas":1,"replicas":2,"list":[{"a":1,"a":1}]},"kind":"X"}'
    assert strict.duplicate_fields(body) == [
        'duplicate field "spec.replicas"',
        'duplicate field "spec.list[0].a"',
    ]
    assert strict.duplicate_fields(b'{"a":{"b":1},"c":{"b":1}}') == []
