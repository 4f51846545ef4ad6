"""The Dockerfile, read: no test here can build it, so each line is held against what it is about."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from tidegate.agent.manifests import Installation, pieces
from tidegate.agent.operator_objects import USER
from tidegate.observers.linux import rules

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text("utf-8")
INSTRUCTIONS = {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "ENTRYPOINT"}
PACKAGES = {"nft": "nftables", "iptables": "iptables", "ip6tables": "iptables"}
"""Debian's package of each tool."""


def lines():
    joined = re.sub(r"\\\n\s*", " ", TEXT)
    return [line.split(None, 1) for line in joined.splitlines() if line and not line.startswith("#")]


def stages():
    found = []
    for word, rest in lines():
        if word == "FROM":
            found.append([])
        found[-1].append((word, rest))
    return found


def test_every_instruction_is_one_and_the_bases_are_the_same():
    assert {word for word, _ in lines()} <= INSTRUCTIONS
    bases = [rest.split() for word, rest in lines() if word == "FROM"]
    slim = "python:3.12-slim"
    assert bases == [[slim, "AS", "build"], [slim, "AS", "operator"], ["operator", "AS", "agent"]]


def test_what_is_copied_is_there_and_is_let_through():
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        one.removeprefix("./")
        for word, rest in lines()
        if word == "COPY" and "--from" not in rest
        for one in rest.split()[:-1]
    }
    assert copied == let_through
    assert not [one for one in copied if not (ROOT / one).exists()]


def test_the_agents_tools_are_in_it_and_nothing_else_is_installed():
    called = set()
    for path in sorted((ROOT / "src/tidegate/observers/linux").glob("*.py")):
        called |= set(re.findall(r'\boutput\(\s*"([a-z0-9]+)"', path.read_text("utf-8")))
    assert {"nft"} <= called <= PACKAGES.keys()
    assert {"iptables", "ip6tables"} == set(rules._PREFIXES.values())
    _, operator, final = stages()
    assert not [rest for _, rest in operator if "apt-get" in rest], "the operator's image has no tools"
    [apt] = [rest for word, rest in final if word == "RUN" and "apt-get install" in rest]
    installed = re.search(r"--no-install-recommends ([a-z ]+?) &&", apt)[1].split()
    assert sorted(installed) == sorted(set(PACKAGES.values()))
    assert "rm -rf /var/lib/apt/lists" in apt


def test_nobody_is_root_by_it_and_operator_and_coordinator_are_who_it_says():
    _, operator, final = stages()
    for stage in (operator, final):
        assert [rest for word, rest in stage if word == "USER"][-1] == f"{USER}:{USER}"
    contexts = [
        one.manifest["spec"]["template"]["spec"]["containers"][0]["securityContext"]
        for one in pieces(Installation("x"))
        if one.manifest["kind"] == "Deployment"
    ]
    assert len(contexts) == 2
    assert {(one["runAsNonRoot"], one["runAsUser"]) for one in contexts} == {(True, USER)}


def test_extras_and_commands_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {one for found in re.findall(r"\[([a-z,]+)\]", TEXT) for one in found.split(",")}
    assert extras == {"cluster"} and extras <= project["optional-dependencies"].keys()
    commands = {
        container["command"][0]
        for one in pieces(Installation("x"))
        if one.manifest["kind"] in ("Deployment", "DaemonSet")
        for container in one.manifest["spec"]["template"]["spec"]["containers"]
    }
    [entry] = [rest for word, rest in lines() if word == "ENTRYPOINT"]
    assert commands == {"tidegate"} <= project["scripts"].keys() and entry == '["tidegate"]'
    assert project["version"] in TEXT, "the example names this version"
