"""``kubectl tidegate``, called by a real kubectl; and what it is told when somebody presses TAB."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tidegate import __version__
from tidegate.cli import main
from tidegate.cli.kubectl import FILES, NOTHING_ELSE, choices

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]


def kubectl(*words):
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "KUBECONFIG": "/dev/null"}
    ran = subprocess.run(["kubectl", *words], capture_output=True, text=True, env=environment, timeout=30)
    assert ran.returncode == 0, ran
    return ran.stdout


def test_the_wheel_brings_both_programs_under_the_names_that_kubectl_looks_for():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    assert scripts["kubectl-tidegate"] == scripts["tidegate"] == "tidegate.cli.main:main"
    assert scripts["kubectl_complete-tidegate"] == "tidegate.cli.kubectl:complete"


def test_kubectl_finds_the_plugin_and_passes_on_what_it_is_asked():
    assert kubectl("tidegate", "--version").split() == ["tidegate,", "version", __version__]
    assert kubectl("tidegate", "drain", "--help").startswith("Usage: kubectl tidegate drain")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["sta"], ["status"]),
        (["drain", "--on-deadline", ""], ["hold", "proceed", "restore"]),
        (["drain", "--on-deadline", "pro"], ["proceed"]),
        (["lab", "kube"], ["kubeconfig"]),
        (["status", "-o", "js"], ["json"]),
    ],
)
def test_kubectl_completes_our_commands_and_options(words, told):
    *lines, directive = kubectl("__complete", "tidegate", *words).splitlines()
    assert [one.partition("\t")[0] for one in lines] == told and directive == f":{NOTHING_ELSE}"


def test_every_command_is_offered_with_what_it_does():
    lines, directive = choices([""])
    offered = dict(one.split("\t") for one in lines)
    assert set(offered) <= set(main._COMMANDS) and len(offered) > 15
    assert all(offered.values()) and directive == NOTHING_ELSE
    assert choices([]) == choices([""])


def test_for_a_file_the_shell_is_left_to_complete():
    assert choices(["install", "--kubeconfig", ""])[1] in (FILES, NOTHING_ELSE)
    assert choices(["inspect", ""]) == ([], FILES)


def test_a_cluster_that_cannot_be_asked_has_no_names_and_no_error(monkeypatch):
    monkeypatch.setenv("KUBECONFIG", "/nonexistent/config")
    assert choices(["drain", "pod/"]) == ([], NOTHING_ELSE)
