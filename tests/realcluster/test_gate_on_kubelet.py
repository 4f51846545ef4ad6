"""Plays ``stories_gate`` on a machine of its own: a real kubelet, containerd, kube-proxy and control plane."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.realcluster import apart, control_plane, kubelet_node

pytestmark = pytest.mark.realcluster
HERE = Path(__file__)
MACHINES = {
    "drains": ("stories_gate.py", "stories_gate_drains.py"),  # the first has the gate's port to itself
    "restarts": ("stories_gate_restarts.py",),
    "releases": ("stories_releases.py",),
    "ill-releases": ("stories_releases_ill.py",),
}
SECONDS_MAX = 240


@pytest.mark.parametrize("stories", MACHINES.values(), ids=MACHINES)
def test_the_gate_on_a_real_kubelet(stories):
    if why := kubelet_node.missing(control_plane.assets()):
        pytest.skip(why)
    play = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", "--durations=10"]
    command = [sys.executable, apart.__file__, *play, *(str(HERE.with_name(name)) for name in stories)]
    ours, its_input = os.pipe()[::-1]  # as long as we have our end, the machine may run
    with subprocess.Popen(command, stdin=its_input, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        os.close(its_input)
        try:
            told = process.communicate(timeout=SECONDS_MAX)[0].decode(errors="replace")
        finally:
            os.close(ours)
            process.wait(20)
            apart.sweep()
    print(told)
    assert process.returncode == 0, told
    assert re.search(r"\b\d+ passed", told) and " skipped" not in told
