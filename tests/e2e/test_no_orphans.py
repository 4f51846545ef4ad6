"""However a lab or its command ends, nothing of it is left; and the next one boots.

Beside tests/lab/runtime/test_orphans.py, which kills each part and then takes the lab down.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess

import pytest
from e2e_world import User, eventually, finish

pytestmark = pytest.mark.realtime

BROOD = "setsid sleep 1000 & (setsid sh -c 'sleep 1001 & sleep 1002' &) & env -i setsid sleep 1003 & sleep 1004"
"""Children of children, in sessions of their own, one without an environment: all belong to the container."""


def until(process: subprocess.Popen[str], words: str) -> None:
    assert process.stderr is not None
    said = ""
    while words not in said:
        line = process.stderr.readline()
        assert line, f"ended with {process.wait()}: {said}"
        said += line


def pod_with_a_brood(user: User, lab: str) -> list[int]:
    """Start it; every process of the lab once all of the brood is there."""
    user.environment["KUBECONFIG"] = str(user.state / "labs" / lab / "kubeconfig")
    user.kubectl("run", "brood", "--image=none", "--restart=Never", "--command", "--", "sh", "-c", BROOD).expect(0)
    eventually(lambda: len(user.family(lab).get("sleep", [])) == 5)
    return [pid for pids in user.family(lab).values() for pid in pids]


def test_labs_in_the_foreground_leave_nothing_however_their_command_ends(user):
    ends = {"rb-int": signal.SIGINT, "rb-term": signal.SIGTERM, "rb-kill": signal.SIGKILL}
    commands = {name: user.start("lab", "up", "--nodes", "1", "--bare", "--lab", name) for name in ends}
    for process in commands.values():
        until(process, "Ctrl-C takes it down")
    shown = json.loads(user.run("lab", "status", "--all", "-o", "json").expect(0).stdout)
    assert len({lab["server"] for lab in shown}) == len(ends)
    for name, number in ends.items():
        os.killpg(commands[name].pid, number)
    ended = {name: (process.communicate(timeout=8)[1], process.returncode) for name, process in commands.items()}
    assert ended == {
        "rb-int": ('lab "rb-int" is down\n', 0),
        "rb-term": ('lab "rb-term" is down\n', 0),
        "rb-kill": ("", -signal.SIGKILL),
    }
    for name in ends:
        eventually(lambda name=name: user.is_gone(name))
    eventually(lambda: user.labs() == [])


def test_demos_that_are_ended_leave_nothing(user):
    ends = (signal.SIGINT, signal.SIGKILL)
    demos = [user.start("demo", "--rows", "plain", "--rate", "20", "--nodes", "1") for _ in ends]
    for demo in demos:
        until(demo, "starting version 1")
    for demo, number in zip(demos, ends, strict=True):
        os.killpg(demo.pid, number)
    ended = [(demo.communicate(timeout=8)[1].strip(), demo.returncode) for demo in demos]
    assert ended == [("interrupted", 130), ("", -signal.SIGKILL)]
    for demo in demos:
        eventually(lambda pid=demo.pid: user.is_gone(f"demo-{pid}"))
    eventually(lambda: user.labs() == [])


def test_a_killed_agent_comes_back_and_a_lab_whose_reaper_was_killed_boots_anew(user):
    user.run("lab", "up", "--detach", "--nodes", "1", "--lab", "rb").expect(0)
    first = pod_with_a_brood(user, "rb")
    eventually(lambda: user.family("rb").get("agent"))
    agent = user.family("rb")["agent"]
    os.kill(agent[0], signal.SIGKILL)
    eventually(lambda: user.family("rb").get("agent", agent) != agent)
    os.kill(user.family("rb")["tidegate-reaper"][0], signal.SIGKILL)
    user.run("lab", "up", "--detach", "--nodes", "1", "--bare", "--lab", "rb").expect(0)
    assert "sleep" not in user.family("rb")
    second = [pid for pids in user.family("rb").values() for pid in pids]
    assert not set(second) & set(first)
    user.run("lab", "down", "--lab", "rb").expect(0)
    assert user.is_gone("rb", first + second)


def test_lab_down_ends_a_lab_whose_state_was_cut_short_or_deleted_and_no_lab_of_that_name_elsewhere(user, tmp_path):
    other = User(tmp_path / "other")
    try:
        both = [one.start("lab", "up", "--detach", "--nodes", "1", "--bare", "--lab", "rb") for one in (user, other)]
        for process in both:
            finish(process).expect(0)
        (user.state / "labs" / "rb" / "lab.json").write_text('{"name": "r')
        (user.state / "labs" / "rb" / "kubeconfig").unlink()
        user.run("lab", "down", "--lab", "rb").expect(0)
        assert user.is_gone("rb")
        assert user.labs() == []
        other.run("lab", "status", "--lab", "rb").expect(0)
        shutil.rmtree(other.state)
        other.run("lab", "down", "--lab", "rb").expect(0)
    finally:
        other.leave()
    assert other.is_gone("rb")
