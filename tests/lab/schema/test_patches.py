"""Merge, JSON and strategic merge patches against the rules (and quirks) of the real API server."""

from __future__ import annotations

import copy

import pytest

from tidegate.lab.apiserver.schema.patches import PatchError, json_patch, merge, strategic


def pod(*containers, **spec):
    return {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": list(containers), **spec}}


def deployment(*containers):
    return {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"template": pod(*containers)}}


@pytest.mark.parametrize(
    ("target", "patch", "expected"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        ([1], {"a": 1}, {"a": 1}),
    ],
)
def test_merge_follows_the_examples_of_rfc_7396(target, patch, expected):
    assert merge(target, patch) == expected


def test_no_patch_changes_what_it_was_given():
    target, before = pod({"name": "a", "env": [{"name": "X", "value": "1"}]}), None
    before = copy.deepcopy(target)
    ops = [{"op": "add", "path": "/spec/containers/0/env/-", "value": {"name": "Y"}}]
    change = {"spec": {"containers": [{"name": "a", "env": [{"name": "X", "$patch": "delete"}]}]}}
    change_before = copy.deepcopy(change)
    for result in (merge(target, change), json_patch(target, ops), strategic(target, change, "Pod")):
        result["spec"]["containers"][0]["image"] = "changed"
    assert target == before
    assert change == change_before


def test_json_patch_carries_out_its_operations_in_order():
    ops = [
        {"op": "test", "path": "/a/b", "value": 1},
        {"op": "add", "path": "/list/1", "value": "x"},
        {"op": "add", "path": "/list/-", "value": "end"},
        {"op": "copy", "from": "/a/b", "path": "/a/c"},
        {"op": "move", "from": "/a/b", "path": "/a/d"},
        {"op": "replace", "path": "/slash~1and~0tilde", "value": True},
        {"op": "remove", "path": "/list/0"},
    ]
    target = {"a": {"b": 1}, "list": ["first", "last"], "slash/and~tilde": False}
    assert json_patch(target, ops) == {
        "a": {"c": 1, "d": 1},
        "list": ["x", "last", "end"],
        "slash/and~tilde": True,
    }


def test_a_json_replace_of_what_is_not_there_adds_it():
    """evanphx/json-patch v4, as the API server of 1.36 uses it."""
    assert json_patch({"n": 1}, [{"op": "replace", "path": "/nope", "value": 2}]) == {"n": 1, "nope": 2}


@pytest.mark.parametrize(
    "op",
    [
        {"op": "test", "path": "/n", "value": 9},
        {"op": "test", "path": "/n", "value": True},
        {"op": "remove", "path": "/nope"},
        {"op": "add", "path": "/nope/deep", "value": 1},
        {"op": "add", "path": "/list/7", "value": 1},
        {"op": "jump", "path": "/n"},
        {"op": "add", "path": "n", "value": 1},
    ],
)
def test_a_json_patch_that_does_not_apply_is_a_422_that_tells_the_client_nothing(op):
    with pytest.raises(PatchError) as failure:
        json_patch({"n": 1, "list": []}, [op])
    assert failure.value.code == 422
    assert failure.value.reason == "Invalid"
    assert failure.value.message == "the server rejected our request due to an error in our request"


def test_a_test_of_a_missing_key_is_a_test_of_null():
    assert json_patch({}, [{"op": "test", "path": "/a", "value": None}]) == {}


def test_a_json_patch_that_is_no_list_is_a_bad_request():
    with pytest.raises(PatchError) as failure:
        json_patch({}, {"op": "add"})
    assert failure.value.code == 400


def test_strategic_merge_finds_containers_by_name_at_any_depth():
    target = deployment({"name": "a", "image": "1"}, {"name": "b", "image": "1"})
    change = {"spec": {"template": {"spec": {"containers": [{"name": "b", "image": "2"}]}}}}
    patched = strategic(target, change, "Deployment")
    assert [c["image"] for c in patched["spec"]["template"]["spec"]["containers"]] == ["1", "2"]


def test_a_new_item_of_a_strategic_patch_stands_before_the_servers():
    patched = strategic(pod({"name": "a"}, {"name": "b"}), {"spec": {"containers": [{"name": "new"}]}}, "Pod")
    assert [c["name"] for c in patched["spec"]["containers"]] == ["new", "a", "b"]


def test_apply_removes_one_env_variable_and_keeps_the_order_it_names():
    target = pod({"name": "c", "env": [{"name": n, "value": "1"} for n in ("A", "B", "INJECTED")]})
    change = {
        "spec": {
            "$setElementOrder/containers": [{"name": "c"}],
            "containers": [
                {
                    "name": "c",
                    "$setElementOrder/env": [{"name": "N"}, {"name": "A"}],
                    "env": [{"name": "N", "value": "2"}, {"name": "B", "$patch": "delete"}],
                }
            ],
        }
    }
    env = strategic(target, change, "Pod")["spec"]["containers"][0]["env"]
    assert [e["name"] for e in env] == ["N", "A", "INJECTED"]


def test_replace_directives_replace_a_map_and_a_list():
    target = pod({"name": "a"}, nodeSelector={"x": "1"})
    change = {
        "spec": {
            "nodeSelector": {"$patch": "replace", "y": "2"},
            "containers": [{"name": "z"}, {"$patch": "replace"}],
        }
    }
    assert strategic(target, change, "Pod") == pod({"name": "z"}, nodeSelector={"y": "2"})


def test_the_delete_directive_empties_a_map_and_null_removes_it():
    target = pod(securityContext={"runAsUser": 1}, nodeSelector={"a": "b"})
    change = {"spec": {"securityContext": {"$patch": "delete"}, "nodeSelector": None}}
    assert strategic(target, change, "Pod")["spec"] == {"containers": [], "securityContext": {}}


def test_finalizers_merge_as_a_set_and_leave_by_the_delete_list():
    target = {"metadata": {"finalizers": ["a/a", "b/b"]}}
    added = strategic(target, {"metadata": {"finalizers": ["c/c", "a/a"]}}, "Pod")
    assert sorted(added["metadata"]["finalizers"]) == ["a/a", "b/b", "c/c"]
    gone = strategic(target, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/a"]}}, "Pod")
    assert gone["metadata"]["finalizers"] == ["b/b"]


def test_retain_keys_moves_a_union_from_one_member_to_another():
    target = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    change = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    assert strategic(target, change, "Deployment")["spec"]["strategy"] == {"type": "Recreate"}
    volume = {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}
    change = {"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}]}}
    assert strategic(volume, change, "Pod")["spec"]["volumes"] == [{"name": "v", "hostPath": {"path": "/"}}]


def test_retain_keys_that_forget_what_the_patch_sets_are_refused():
    change = {"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": {}}}}
    with pytest.raises(PatchError) as failure:
        strategic({"spec": {"strategy": {"type": "x"}}}, change, "Deployment")
    assert failure.value.code == 400


def test_lists_without_a_merge_strategy_are_replaced():
    patched = strategic(
        pod({"name": "a", "command": ["x", "y"]}),
        {"spec": {"containers": [{"name": "a", "command": ["z"]}]}},
        "Pod",
    )
    assert patched["spec"]["containers"][0]["command"] == ["z"]


def test_service_ports_merge_by_port_and_container_ports_by_container_port():
    service = {"spec": {"ports": [{"port": 80, "targetPort": 8080}, {"port": 81}]}}
    patched = strategic(service, {"spec": {"ports": [{"port": 80, "targetPort": 9}]}}, "Service")
    assert patched["spec"]["ports"] == [{"port": 80, "targetPort": 9}, {"port": 81}]
    target = pod({"name": "a", "ports": [{"containerPort": 1}]})
    change = {"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 2}]}]}}
    patched = strategic(target, change, "Pod")
    assert [p["containerPort"] for p in patched["spec"]["containers"][0]["ports"]] == [2, 1]


def test_conditions_merge_by_type():
    target = {"status": {"conditions": [{"type": "Ready", "status": "False"}, {"type": "PodScheduled"}]}}
    change = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    conditions = strategic(target, change, "Pod")["status"]["conditions"]
    assert {c["type"]: c.get("status") for c in conditions} == {"Ready": "True", "PodScheduled": None}


def test_an_item_without_its_merge_key_is_an_error():
    with pytest.raises(PatchError) as failure:
        strategic(pod({"name": "a"}), {"spec": {"containers": [{"image": "x"}]}}, "Pod")
    assert failure.value.message == "map: map[image:x] does not contain declared merge key: name"
    assert (failure.value.code, failure.value.reason) == (500, "")


def test_a_patch_that_is_no_map_is_told_as_go_tells_it():
    for patch, kind in (("x", "string"), ([1], "array"), (1, "number"), (True, "bool")):
        with pytest.raises(PatchError, match=f"cannot unmarshal {kind} into Go value of type map"):
            strategic({}, patch, "Pod")
        with pytest.raises(PatchError, match="error decoding patch: json: cannot unmarshal"):
            merge({}, patch)


def test_directives_are_never_stored():
    patched = strategic({}, {"spec": {"containers": [{"name": "a", "$retainKeys": ["name"], "x": None}]}}, "Pod")
    assert patched == {"spec": {"containers": [{"name": "a"}]}}
