"""The rows' manifests carry their hook and nothing else that differs."""

from __future__ import annotations

import copy

from tidegate.rehearse import manifests
from tidegate.rehearse.settings import ROWS, Settings


def test_each_row_writes_its_hook_into_the_template() -> None:
    assert [manifests.hook(row) for row in ROWS[:4]] == [
        None,
        {"sleep": {"seconds": 5}},
        {"sleep": {"seconds": 15}},
        {"httpGet": {"path": "/gate/echo", "port": 15299}},
    ]


def test_a_gated_pod_gets_time_to_be_held() -> None:
    spec = manifests.deployment(ROWS[3], Settings())["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] == 60
    assert "host" not in spec["containers"][0]["lifecycle"]["preStop"]["httpGet"]


def test_rows_differ_in_hook_and_grace_only() -> None:
    bare = []
    for row in ROWS:
        pod = copy.deepcopy(manifests.deployment(row, Settings())["spec"]["template"]["spec"])
        pod.pop("terminationGracePeriodSeconds", None)
        pod["containers"][0].pop("lifecycle", None)
        bare.append(pod)
    assert all(pod == bare[0] for pod in bare)


def test_the_update_changes_the_image_only() -> None:
    body = manifests.update().body
    assert [step["op"] for step in body] == ["test", "replace"]
    assert {step["path"] for step in body} == {"/spec/template/spec/containers/0/image"}


def test_every_row_has_a_namespace_of_its_own_that_is_a_dns_label() -> None:
    names = [row.namespace for row in ROWS]
    assert len(set(names)) == len(names)
    assert all(name.replace("-", "").isalnum() for name in names)
