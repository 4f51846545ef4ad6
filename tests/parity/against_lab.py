"""Replay the recorded kubectl stories against a lab of one node (the recording had one, too).

    python -m tests.parity.against_lab [--only REGEX] [--lab-kubeconfig FILE]

Exit 0 when every story but the known ones below prints what a real 1.36 cluster printed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
LAB = "parity"

KNOWN: dict[str, str] = {}
"""Story -> why the lab may differ. A story that agrees leaves this list."""

BY_THE_SECOND = {
    "server-side-apply": "writers of one second are listed by name; on the recorded cluster a second had passed",
}
"""Story -> why the order of its lines depends on the clock: managedFields carry whole seconds (meta/v1 Time)."""

VARIABLES = {
    "IMAGE": "tidegate/echo:1",
    "IMAGE2": "tidegate/echo:2",
    "CNAME": "echo",
    "HTTPD": "exec python3 -m http.server --bind $POD_IP 8080",
}


def tidegate(*words: str, env: dict[str, str]) -> None:
    subprocess.run([BIN / "tidegate", "lab", *words, "--lab", LAB], env=env, check=True, stdout=subprocess.DEVNULL)


def compare(kubeconfig: str, only: str) -> dict[str, dict[str, object]]:
    command = [sys.executable, HERE / "run.py", "compare", kubeconfig, HERE / "open.yaml", HERE / "open.golden.json"]
    command += ["--json", "--jobs", "4", "--retries", "1"]
    command += [word for name, value in VARIABLES.items() for word in ("--var", f"{name}={value}")]
    command += ["--only", only] if only else []
    env = {**os.environ, "KUBECTL": str(BIN / "kubectl")}
    done = subprocess.run(command, env=env, check=False, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout)["cases"])


def only_moves_lines(case: dict[str, object]) -> bool:
    """Whether the same lines were printed, in another order."""
    lines = [str(line) for line in case["diff"]]  # type: ignore[attr-defined]
    gone = sorted(line[1:] for line in lines if line.startswith("-") and not line.startswith("---"))
    new = sorted(line[1:] for line in lines if line.startswith("+") and not line.startswith("+++"))
    return bool(gone) and gone == new


def report(cases: dict[str, dict[str, object]]) -> bool:
    """Say what differs; True when nothing unexpected does."""
    agreed = [name for name, case in cases.items() if case["ok"]]
    for name, case in sorted(cases.items()):
        if case["ok"]:
            continue
        if name in BY_THE_SECOND and only_moves_lines(case):
            print(f"moved  {name}  {BY_THE_SECOND[name]}")
            agreed.append(name)
            continue
        print(f"{'known' if name in KNOWN else 'DIFF '}  {name}  {KNOWN.get(name, '')}")
        if name not in KNOWN:
            for line in [case["error"], *case["diff"]]:  # type: ignore[misc]
                print(f"    {line}" if line else "")
    for name in sorted(set(agreed) & set(KNOWN)):
        print(f"agrees now: {name} (take it from KNOWN)")
    print(f"{len(agreed)} of {len(cases)} stories agree")
    return set(cases) - set(agreed) <= set(KNOWN)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="regular expression of story names")
    parser.add_argument("--lab-kubeconfig", default="", help="use a lab (or cluster) that is up already")
    asked = parser.parse_args()
    if asked.lab_kubeconfig:
        return 0 if report(compare(asked.lab_kubeconfig, asked.only)) else 1
    with tempfile.TemporaryDirectory(prefix="parity-") as home:
        env = {**os.environ, "XDG_STATE_HOME": home}
        tidegate("up", "--nodes", "1", "--bare", "--detach", env=env)
        try:
            shown = subprocess.run(
                [BIN / "tidegate", "lab", "kubeconfig", "--path", "--lab", LAB],
                env=env, check=True, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            return 0 if report(compare(shown.stdout.strip(), asked.only)) else 1
        finally:
            tidegate("down", env=env)


if __name__ == "__main__":
    sys.exit(main())
