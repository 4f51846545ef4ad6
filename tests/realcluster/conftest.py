"""Fixtures of the tests that a real control plane judges; skipped, visibly, where its binaries are absent."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.realcluster import control_plane


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
