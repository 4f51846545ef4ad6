"""Server-side apply: the stories of the parity corpus and the rules around them."""

from __future__ import annotations

import pytest

from tidegate.lab.apiserver.schema import fieldsets
from tidegate.lab.apiserver.schema.ownership import ApplyConflict, Writer, apply, track


def config_map(**data):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "s"}, "data": data}


def deployment(image, replicas=None):
    spec = {
        "selector": {"matchLabels": {"app": "dep"}},
        "template": {
            "metadata": {"labels": {"app": "dep"}},
            "spec": {"containers": [{"name": "c", "image": image}]},
        },
    }
    if replicas is not None:
        spec["replicas"] = replicas
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "dep"}, "spec": spec}


class Cluster:
    """One object that managers write to, one second apart."""

    def __init__(self, kind):
        self.kind = kind
        self.object = None
        self.seconds = 0

    def _writer(self, manager):
        self.seconds += 1
        version = "apps/v1" if self.kind == "Deployment" else "v1"
        return Writer(manager, version, f"2026-01-01T00:00:{self.seconds:02}Z")

    def apply(self, manager, config, *, force=False):
        applied = apply(self.object, config, self.kind, self._writer(manager), force=force)
        applied.object["metadata"]["managedFields"] = applied.managed
        self.object = applied.object

    def update(self, manager, new):
        managed = track(self.object, new, self.kind, self._writer(manager))
        self.object = {**new, "metadata": {**new["metadata"], "managedFields": managed}}

    @property
    def owners(self):
        managed = self.object["metadata"]["managedFields"]
        return [(entry["manager"], entry["operation"], entry["fieldsV1"]) for entry in managed]


def test_an_apply_over_another_managers_values_names_the_fields():
    cluster = Cluster("Deployment")
    cluster.update("other", deployment("x:1", replicas=1))
    with pytest.raises(ApplyConflict) as failure:
        cluster.apply("kubectl", deployment("x:2", replicas=2))
    assert str(failure.value) == (
        'Apply failed with 2 conflicts: conflicts with "other" using apps/v1:\n'
        '- .spec.replicas\n- .spec.template.spec.containers[name="c"].image'
    )
    assert failure.value.causes[0] == {
        "reason": "FieldManagerConflict",
        "message": 'conflict with "other" using apps/v1',
        "field": ".spec.replicas",
    }


def test_a_forced_apply_takes_the_fields():
    cluster = Cluster("Deployment")
    cluster.update("other", deployment("x:1", replicas=1))
    cluster.apply("kubectl", deployment("x:2", replicas=2), force=True)
    manager, operation, fields = cluster.owners[0]
    assert (manager, operation) == ("kubectl", "Apply")
    assert fields == {
        "f:spec": {
            "f:replicas": {},
            "f:selector": {},
            "f:template": {
                "f:metadata": {"f:labels": {"f:app": {}}},
                "f:spec": {"f:containers": {'k:{"name":"c"}': {".": {}, "f:image": {}, "f:name": {}}}},
            },
        }
    }
    assert "f:replicas" not in cluster.owners[1][2]["f:spec"]
    assert cluster.object["spec"]["replicas"] == 2


def test_two_managers_share_a_value_until_one_changes_it():
    cluster = Cluster("ConfigMap")
    cluster.apply("A", config_map(one="1", two="2"))
    cluster.apply("B", config_map(one="1", three="3"))
    assert cluster.object["data"] == {"one": "1", "two": "2", "three": "3"}
    with pytest.raises(ApplyConflict, match=r'1 conflict: conflict with "A": \.data\.one'):
        cluster.apply("B", config_map(one="other", three="3"))
    cluster.apply("A", config_map(one="1"))
    assert cluster.object["data"] == {"one": "1", "three": "3"}
    assert cluster.owners == [
        ("B", "Apply", {"f:data": {"f:one": {}, "f:three": {}}}),
        ("A", "Apply", {"f:data": {"f:one": {}}}),
    ]
    cluster.apply("B", config_map(one="other", three="3"), force=True)
    assert cluster.object["data"] == {"one": "other", "three": "3"}
    assert [owner for owner, _, _ in cluster.owners] == ["B"]


def test_a_field_goes_only_when_its_last_owner_drops_it():
    cluster = Cluster("ConfigMap")
    cluster.apply("A", config_map(one="1"))
    cluster.apply("B", config_map(one="1"))
    cluster.apply("A", {**config_map(), "data": {}})
    assert cluster.object["data"] == {"one": "1"}
    cluster.apply("B", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "s"}})
    assert "one" not in cluster.object.get("data", {})


def test_applying_the_same_again_changes_nothing_not_even_the_time():
    cluster = Cluster("Deployment")
    cluster.apply("kubectl", deployment("x:1"))
    before = cluster.object
    cluster.apply("kubectl", deployment("x:1"))
    assert cluster.object == before


def test_an_object_nobody_tracked_belongs_to_before_first_apply():
    cluster = Cluster("ConfigMap")
    cluster.object = config_map(one="1")
    with pytest.raises(ApplyConflict, match=r'conflict with "before-first-apply" using v1: \.data\.one'):
        cluster.apply("kubectl", config_map(one="2"))
    cluster.apply("kubectl", config_map(one="1", two="2"))
    assert [owner for owner, _, _ in cluster.owners] == ["kubectl", "before-first-apply"]


def test_an_update_takes_what_it_changes_and_loses_what_it_removes():
    cluster = Cluster("ConfigMap")
    cluster.update("a", config_map(x="1", y="1"))
    cluster.update("b", config_map(x="2"))
    assert cluster.owners == [("b", "Update", {"f:data": {"f:x": {}}})]


def test_containers_and_ports_are_known_by_their_keys():
    ports = [{"containerPort": 80}, {"containerPort": 80, "protocol": "UDP"}]
    obj = deployment("x")
    obj["spec"]["template"]["spec"]["containers"][0]["ports"] = ports
    paths = {fieldsets.shown(path) for path in fieldsets.leaves(obj, "Deployment")}
    base = '.spec.template.spec.containers[name="c"].ports'
    assert f'{base}[containerPort=80,protocol="TCP"].containerPort' in paths
    assert f'{base}[containerPort=80,protocol="UDP"]' in paths


def test_a_container_of_another_manager_stays_beside_the_applied_one():
    cluster = Cluster("Deployment")
    injected = deployment("x:1")
    cluster.apply("kubectl", injected)
    with_sidecar = deployment("x:1")
    with_sidecar["spec"]["template"]["spec"]["containers"].append({"name": "side", "image": "s"})
    cluster.update("injector", with_sidecar | {"metadata": cluster.object["metadata"]})
    cluster.apply("kubectl", deployment("x:2"))
    containers = cluster.object["spec"]["template"]["spec"]["containers"]
    assert [(c["name"], c["image"]) for c in containers] == [("c", "x:2"), ("side", "s")]


def test_field_sets_survive_their_encoding():
    paths = frozenset(fieldsets.leaves(deployment("x", 1), "Deployment"))
    assert fieldsets.decode(fieldsets.encode(paths)) == paths
