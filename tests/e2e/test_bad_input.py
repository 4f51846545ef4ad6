"""What a user of a running lab gets wrong is said in one line, and the lab goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from e2e_world import BIN, finish

pytestmark = pytest.mark.realtime

MALFORMED = "apiVersion: v1\nkind: Pod\nmetadata: [\n"
UNKNOWN = "apiVersion: v1\nkind: Nonsense\nmetadata: {name: x}\n"
INVALID = "apiVersion: v1\nkind: Pod\nmetadata: {name: X_Y}\nspec: {containers: []}\n"


def test_what_a_running_lab_cannot_do(resident, golden):
    lines = {
        "lab up --lab home": 3,
        "lab fault clear --node node-9 --lab home": 1,
        "status svc/nothing": 1,
        "drain pod/nothing -n nowhere --yes": 1,
    }
    answers = {line: resident.start(*line.split()) for line in lines}
    transcript = ""
    for line, process in answers.items():
        transcript += f"$ tidegate {line}\n{resident.told(finish(process).expect(lines[line]))}"
    golden("cli/running-lab.txt", transcript)


def test_a_lab_may_open_as_many_files_as_the_machine_allows(resident):
    limits = Path(f"/proc/{resident.family('home')['tidegate-kernel'][0]}/limits").read_text()
    _, soft, hard = next(line for line in limits.splitlines() if line.startswith("Max open files")).rsplit(None, 3)[:3]
    assert soft == hard != "256"


def test_kubectl_with_manifests_that_are_none(resident, tmp_path):
    answers = []
    for name, text in (("malformed", MALFORMED), ("unknown", UNKNOWN), ("invalid", INVALID)):
        path = tmp_path / f"{name}.yaml"
        path.write_text(text)
        answers.append(resident.start("create", "-f", str(path), program="kubectl"))
    malformed = str(tmp_path / "malformed.yaml")
    raw = ("create", "--raw", "/api/v1/namespaces/default/pods", "-f", malformed)
    answers.append(resident.start(*raw, program="kubectl"))
    for process in answers:
        finish(process).expect(1)
    found = json.loads(resident.kubectl("get", "pods", "-o", "json").expect(0).stdout)
    assert found["items"] == []


def test_the_plugin_is_the_same_program_under_kubectls_name(resident):
    resident.environment["PATH"] = f"{BIN}:{resident.environment['PATH']}"
    said = resident.kubectl("tidegate", "drain", "web").expect(2).stderr
    assert said.startswith("error: invalid value for '[TARGETS]...': 'web' is not pod/NAME, deploy/NAME, ")
    assert said.endswith("or node/NAME; see `kubectl tidegate drain --help`\n")
