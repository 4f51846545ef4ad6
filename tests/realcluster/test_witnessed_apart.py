"""The stories of ``test_witnessed`` need an address that is not a loopback one: they get a network of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.realcluster import control_plane
from tests.realcluster.stand_in import NAMESPACE_ADDRESS, own_address

ADDRESS = "192.0.2.1"
"""TEST-NET-1 (RFC 5737), on the namespace's own loopback device: nothing can leave."""
SCRIPT = f'ip link set lo up && ip address add {ADDRESS}/32 dev lo && exec "$@"'

pytestmark = pytest.mark.realcluster


@pytest.mark.skipif(bool(own_address()), reason="we are inside it already")
def test_the_stories_with_a_witness_hold_in_a_network_namespace_of_their_own():
    if control_plane.assets() is None:
        pytest.skip(f"KUBEBUILDER_ASSETS has no {', '.join(control_plane.NEEDED)}")
    if not shutil.which("unshare") or not shutil.which("ip"):
        pytest.skip("no unshare or no ip (Debian: util-linux, iproute2)")
    apart = ["unshare", "--net", "--map-root-user", "sh", "-c", SCRIPT, "sh"]
    if subprocess.run([*apart, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets us make no network namespace")
    stories = Path(__file__).with_name("test_witnessed.py")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(stories)]
    ran = subprocess.run(
        [*apart, *command], env={**os.environ, NAMESPACE_ADDRESS: ADDRESS}, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "10 passed" in ran.stdout
