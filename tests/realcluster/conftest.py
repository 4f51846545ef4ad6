"""Fixtures of the tests that a real control plane judges; skipped, visibly, where its binaries are absent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from tests.realcluster import control_plane, gate_scene, kubelet_node


@pytest.fixture(scope="session")
def real_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[control_plane.ControlPlane]:
    binaries = control_plane.assets()
    if binaries is None:
        pytest.skip(f"KUBEBUILDER_ASSETS has no {', '.join(control_plane.NEEDED)}")
    with control_plane.running(tmp_path_factory.mktemp("control-plane"), binaries) as plane:
        yield plane


@pytest.fixture
def quiet_cluster(real_cluster: control_plane.ControlPlane) -> Iterator[control_plane.ControlPlane]:
    """The same one while its controllers stand still."""
    with real_cluster.without_controllers():
        yield real_cluster


@pytest.fixture(scope="session")
def node(
    real_cluster: control_plane.ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[kubelet_node.KubeletNode]:
    """A node with a real kubelet. Only on a machine of its own (``apart``)."""
    binaries = control_plane.assets()
    assert binaries is not None
    with kubelet_node.kubelet_node(real_cluster, binaries, tmp_path_factory.mktemp("node")) as one:
        asyncio.run(gate_scene.is_up(one))
        yield one


@pytest.fixture(scope="session")
def installed(node: kubelet_node.KubeletNode, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Agent, holder and coordinator run on it from here on."""
    asyncio.run(gate_scene.install(node, tmp_path_factory.mktemp("tidegate")))
