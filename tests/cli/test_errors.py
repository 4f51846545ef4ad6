"""Bad input is answered in one line that says what to do, with the right exit code, and leaves nothing half-made.

The whole transcript is a golden file: read it as a user would.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from pathlib import Path

import pytest

from tidegate.cli.main import main

KUBECONFIGS = {
    "malformed.yaml": b"apiVersion: v1\nclusters:\n  - [\n",
    "text.yaml": b"hello\n",
    "binary.yaml": b"\xff\xfe\x00",
    "empty.yaml": b"",
    "no-lists.yaml": b"clusters: 7\ncontexts: [1]\ncurrent-context: a\n",
    "no-context.yaml": b"clusters: []\n",
    "no-server.yaml": b"clusters: [{name: a, cluster: {}}]\ncontexts: [{name: a, context: {cluster: a}}]\n"
    b"current-context: a\n",
    "no-url.yaml": b"clusters: [{name: a, cluster: {server: 'over there'}}]\n"
    b"contexts: [{name: a, context: {cluster: a}}]\ncurrent-context: a\n",
    "no-user.yaml": b"clusters: [{name: a, cluster: {server: 'http://127.0.0.1:1'}}]\n"
    b"contexts: [{name: a, context: {cluster: a, user: me}}]\ncurrent-context: a\n",
    "bad-ca.yaml": b"clusters: [{name: a, cluster: {server: 'https://127.0.0.1:1', certificate-authority-data: '!'}}]\n"
    b"contexts: [{name: a, context: {cluster: a}}]\ncurrent-context: a\n",
    "no-pem.yaml": b"clusters: [{name: a, cluster: {server: 'https://127.0.0.1:1', "
    b"certificate-authority-data: aGVsbG8=}}]\n"
    b"contexts: [{name: a, context: {cluster: a}}]\ncurrent-context: a\n",
    "stale.yaml": b"clusters: [{name: a, cluster: {server: 'http://127.0.0.1:1'}}]\n"
    b"contexts: [{name: a, context: {cluster: a}}]\ncurrent-context: a\n",
}


class Shell:
    """Runs the command line in this process, in a folder of its own, and writes down what it says."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._folder = folder
        self._capsys = capsys
        self.transcript = ""

    def run(self, line: str) -> int:
        with pytest.raises(SystemExit) as left:
            main(line.split())
        said = self._capsys.readouterr()
        code = left.value.code if isinstance(left.value.code, int) else 1
        text = (said.out + said.err).replace(str(self._folder), "HERE")
        assert text.count("\n") == 1, text
        self.transcript += f"$ tidegate {line}\n{text}-> {code}\n\n"
        return code


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIDEGATE_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sys, "argv", ["tidegate"])
    for name in ("KUBECONFIG", "XDG_RUNTIME_DIR", "TIDEGATE_DEBUG", "TIDEGATE_LAB_NAME", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    return Shell(tmp_path, capsys)


def test_a_command_line_that_cannot_be_meant(shell, golden):
    for line in (
        "bogus",
        "lab bogus",
        "lab up --bogus",
        "lab up --nodes 0",
        "lab up --nodes many",
        "lab up --port 70000",
        "lab up --block 300",
        "lab up --lab Not_A_Name",
        "lab status --lab ../../etc",
        "lab fault",
        "lab fault proxy-melt --node node-1",
        "lab fault proxy-freeze --node node-1",
        "lab fault proxy-freeze --node node-1 --seconds nan",
        "lab fault proxy-lag --node node-1 --seconds -1",
        "demo --rows sleep-5,nap-5",
        "demo --surge lots",
        "demo --rate 0",
        "demo --report .",
        "sim --seeds 0",
        "status web",
        "status ingress/web",
        "status svc/web --orphans",
        "drain web",
        "drain pod/UPPER",
        "drain pod/",
        "drain pod/web --timeout 5y",
        "drain pod/web --on-deadline pray",
        "completion tcsh",
        "agent cook",
    ):
        assert shell.run(line) == 2
    golden("cli/usage.txt", shell.transcript)
    assert os.listdir() == []


def test_a_lab_that_is_not_there(shell, golden):
    for line in (
        "lab status --lab web",
        "lab down --lab web",
        "lab kubeconfig --lab web",
        "lab fault clear --node node-1 --lab web",
    ):
        assert shell.run(line) == 1
    assert shell.run("lab down --all") == 0
    golden("cli/no-lab.txt", shell.transcript)
    assert os.listdir() == []


def test_a_kubeconfig_that_is_not_one(shell, golden):
    for name, content in KUBECONFIGS.items():
        Path(name).write_bytes(content)
        assert shell.run(f"status svc/web --kubeconfig {name}") == 1
    assert shell.run("drain pod/web --kubeconfig nowhere.yaml") == 1
    assert shell.run("drain pod/web --kubeconfig .") == 1
    assert shell.run("drain pod/web --kubeconfig stale.yaml --context other") == 1
    assert shell.run("drain pod/web") == 1
    golden("cli/kubeconfig.txt", shell.transcript)


def test_a_folder_that_cannot_be_used(shell, golden, monkeypatch):
    Path("file").touch()
    monkeypatch.setenv("TIDEGATE_STATE", "file")
    for line in ("lab up", "lab status", "lab down", "demo --rows plain"):
        assert shell.run(line) == 1
    monkeypatch.setenv("TIDEGATE_STATE", "state")
    assert shell.run("demo --rows plain --report file/report.html") == 1
    monkeypatch.setenv("TMPDIR", str(Path("t" * 100).absolute()))
    monkeypatch.setattr("tidegate.lab.folder.os.access", lambda path, mode: "tttt" in str(path))
    monkeypatch.setattr("tempfile.tempdir", None)
    Path("t" * 100).mkdir()
    assert shell.run("lab up") == 1
    golden("cli/folders.txt", shell.transcript.replace(f"demo-{os.getpid()}", "demo-PID"))
    assert sorted(os.listdir()) == ["file", "t" * 100]


def test_a_machine_that_cannot_have_a_lab(shell, golden, monkeypatch):
    with monkeypatch.context() as poorer:
        poorer.setattr(sys, "platform", "darwin")
        assert shell.run("lab up") == 1
    with monkeypatch.context() as poorer:
        poorer.delitem(sys.modules, "wsproto", raising=False)
        poorer.setitem(sys.modules, "wsproto", None)
        assert shell.run("lab up") == 1
        assert shell.run("demo") == 1
    golden("cli/machine.txt", shell.transcript)
    assert os.listdir() == []


def test_ports_and_addresses_that_are_taken(shell, golden, monkeypatch):
    monkeypatch.setattr("tidegate.lab.blocks.BLOCKS", range(220, 228, 4))
    from tidegate.lab.blocks import claim

    with contextlib.ExitStack() as held, socket.socket() as taken:
        taken.bind(("127.220.0.1", 16_443))
        taken.listen()
        held.enter_context(contextlib.closing(claim(224, 16_443)))
        assert shell.run("lab up --port 16443") == 1
        assert shell.run("lab up --port 16443 --block 220") == 1
        assert shell.run("lab up --block 222") == 1
        held.enter_context(contextlib.closing(claim(220, 16_444)))
        assert shell.run("lab up --port 16443") == 1
    golden("cli/addresses.txt", shell.transcript)
    assert os.listdir("state/labs") == []
