"""The kubelet is found among real processes, and nobody else is taken for it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import pytest

from tidegate.observers.linux import KubeletProcess

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root's process is the kubelet")
TALK = """
import os, sys
open("/proc/self/comm", "w").write(sys.argv[1])
os.setuid(int(sys.argv[2]))
print(flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def process(name, *before, user=0):
    command = [*before, sys.executable, "-c", TALK, name, str(user)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as one:
        one.stdout.readline()
        try:
            yield one
        finally:
            one.kill()


@pytest.fixture
def name(monkeypatch):
    """A name of this test's own: a machine that runs these tests may have a kubelet."""
    name = f"klet-{os.getpid()}"
    monkeypatch.setattr("tidegate.observers.linux.kubelet.NAME", name)
    return name


def test_the_kubelet_is_found_by_its_name_and_again_after_a_restart(name):
    own = KubeletProcess()
    assert own.pid() == 0
    with process(name) as first:
        assert own.pid() == first.pid
    assert own.pid() == 0
    with process(name) as second:
        assert own.pid() == second.pid


def test_of_two_neither_is_believed(name):
    with process(name), process(name):
        assert KubeletProcess().pid() == 0


@pytest.mark.parametrize("way", [("--net",), ("--pid", "--fork")], ids=["of a pod's network", "of a pod's processes"])
def test_a_process_that_calls_itself_so_elsewhere_is_not_believed(name, way):
    with process(name, "unshare", *way):
        assert KubeletProcess().pid() == 0


def test_another_users_process_is_not_believed(name):
    with process(name, user=65534):
        assert KubeletProcess().pid() == 0


def test_what_is_given_is_taken():
    assert KubeletProcess(42).pid() == 42
