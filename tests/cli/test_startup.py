"""What a command imports before it does anything: told as modules, for seconds depend on the machine.

Each of these was imported by every command once, and was half a second of a busy machine. How start-up is kept short:
``tidegate.late``.
"""

import json
import os
import subprocess
import sys

import pytest

HEAVY = {
    "aiohttp": "0.12 s",
    "cryptography": "0.07 s",
    "prometheus_client": "an extra",
    "rich": "a screen",
    "tidegate.agent": "the node's side",
    "tidegate.client.drain": "the verbs on pods",
    "tidegate.drain.table": "the drain table",
    "tidegate.lab": "the lab",
    "tidegate.operator": "releases as objects",
    "tidegate.rehearse": "the rehearsals",
    "tidegate.release.canary": "a strategy that is not asked for",
    "tidegate.release.foresee": "plans",
    "tidegate.release.rainbow": "a strategy that is not asked for",
    "uvloop": "an extra",
}
"""Module -> what it costs, or what it is for."""

TOLD = """
import json, sys
from tidegate.cli.main import main
try:
    main()
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def imported(*arguments, code=0):
    """The modules that a process has at the end of a command."""
    done = subprocess.run(
        [sys.executable, "-c", TOLD, *arguments], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "KUBECONFIG": os.devnull},
    )  # fmt: skip
    assert done.returncode == code, done.stderr[-500:]
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    "words", [("--version",), ("--help",), ("release", "rollback", "--help"), ("completion", "bash")]
)
def test_to_tell_about_itself_no_command_imports_a_cluster(words):
    found = imported(*words)
    assert not found & {*HEAVY, "yaml", "tidegate.kube.client", "tidegate.client.release.command"}


ROLLBACK = """
import json, sys
from tidegate.cli import release_book, release_view
from tidegate.client.release import command, document
from tidegate.kube import connect
from tidegate.kube.kubeconfig import Cluster
from tidegate.release.strategies import strategy_of
connect._transport(Cluster("https://10.0.0.1:6443"), True)
strategy_of("bluegreen")
print(json.dumps(sorted(sys.modules)))
"""


def test_a_rollback_imports_its_own_strategy_and_a_client_without_aiohttp():
    done = subprocess.run([sys.executable, "-c", ROLLBACK], capture_output=True, text=True, timeout=60, check=True)
    found = set(json.loads(done.stdout))
    assert "tidegate.release.bluegreen" in found
    assert not found & set(HEAVY)
