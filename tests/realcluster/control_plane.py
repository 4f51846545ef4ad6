"""A real control plane on loopback, from the binaries in $KUBEBUILDER_ASSETS (as setup-envtest lays them out)."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from tests.realcluster import certificates
from tests.realcluster.certificates import Pair

NEEDED = ("etcd", "kube-apiserver", "kube-controller-manager")
TOKEN = "test-only"


def assets() -> Path | None:
    """The folder with the binaries, or None when some are missing."""
    folder = Path(os.environ.get("KUBEBUILDER_ASSETS") or "/nonexistent")
    return folder if all((folder / name).exists() for name in NEEDED) else None


@dataclass
class ControlPlane:
    """A running one. ``commands`` and ``processes`` are by program."""

    server: str
    kubeconfig: Path
    version: str
    folder: Path
    etcd: str
    ca: Pair
    commands: dict[str, list[str]]
    processes: dict[str, subprocess.Popen[bytes]]

    def start(self, name: str) -> None:
        """Run a program of it, and wait for the API server to be ready."""
        log = (self.folder / f"{name}.log").open("ab")
        self.processes[name] = subprocess.Popen(self.commands[name], stdout=log, stderr=log, cwd=self.folder)
        if name == "kube-apiserver":
            _wait_ready(f"{self.server}/readyz")

    def compact(self) -> None:
        """Make etcd forget everything but the present (by its JSON gateway)."""
        status = _post(f"{self.etcd}/v3/maintenance/status", {})
        _post(f"{self.etcd}/v3/kv/compaction", {"revision": status["header"]["revision"], "physical": True})

    def kill(self, name: str) -> None:
        """End a program of it without a word."""
        self.processes[name].kill()
        self.processes[name].wait()

    @contextlib.contextmanager
    def without_controllers(self) -> Iterator[None]:
        """Nobody but the caller writes: the controller manager is stopped for so long."""
        controllers = self.processes["kube-controller-manager"]
        controllers.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            controllers.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End all of it. Nothing of it is kept, so nothing is asked to leave in good order (which takes 5 s)."""
        for name in list(self.processes):
            self.kill(name)
        shutil.rmtree(self.folder / "etcd", ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def _post(url: str, body: dict[str, object]) -> dict[str, dict[str, str]]:
    request = urllib.request.Request(url, json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=5) as answer:
        found: dict[str, dict[str, str]] = json.load(answer)
        return found


def _wait_ready(url: str, seconds: float = 60) -> None:
    context = ssl._create_unverified_context()
    deadline = time.monotonic() + seconds
    while True:
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"})
        try:
            with urllib.request.urlopen(request, timeout=2, context=context):
                return
        except (urllib.error.URLError, OSError) as error:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{url}: {error}") from error
            time.sleep(0.1)  # realtime: a real process boots


@contextlib.contextmanager
def running(folder: Path, binaries: Path) -> Iterator[ControlPlane]:
    """Boot etcd, API server and controller manager in ``folder``; end them on leaving."""
    etcd_port, peer_port, port = _free_port(), _free_port(), _free_port()
    key = folder / "sa.key"
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    (folder / "tokens.csv").write_text(f"{TOKEN},admin,admin,system:masters\n")
    ca = certificates.authority(folder, "ca")
    serving = certificates.signed(ca, "serving", "/CN=kube-apiserver", "subjectAltName=IP:127.0.0.1")
    server = f"https://127.0.0.1:{port}"
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "real",
                "clusters": [{"name": "real", "cluster": {"server": server, "certificate-authority": "ca.crt"}}],
                "users": [{"name": "real", "user": {"token": TOKEN}}],
                "contexts": [{"name": "real", "context": {"cluster": "real", "user": "real"}}],
            }
        )
    )
    commands = [
        [
            "etcd",
            f"--data-dir={folder / 'etcd'}",
            f"--listen-client-urls=http://127.0.0.1:{etcd_port}",
            f"--advertise-client-urls=http://127.0.0.1:{etcd_port}",
            f"--listen-peer-urls=http://127.0.0.1:{peer_port}",
            "--unsafe-no-fsync",
        ],
        [
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{etcd_port}",
            f"--tls-cert-file={serving.certificate}",
            f"--tls-private-key-file={serving.key}",
            f"--client-ca-file={ca.certificate}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={port}",
            "--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112",
            f"--token-auth-file={folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--endpoint-reconciler-type=none",
        ],
        [
            "kube-controller-manager",
            f"--kubeconfig={kubeconfig}",
            "--leader-elect=false",
            "--use-service-account-credentials=false",
            "--kube-api-qps=1000",
            "--kube-api-burst=1000",
            f"--service-account-private-key-file={key}",
            "--bind-address=127.0.0.1",
            f"--secure-port={_free_port()}",
            f"--cert-dir={folder / 'kcm'}",
        ],
    ]
    version = subprocess.run([str(binaries / "kube-apiserver"), "--version"], capture_output=True, text=True)
    named = {name: [str(binaries / name), *arguments] for name, *arguments in commands}
    plane = ControlPlane(
        server, kubeconfig, version.stdout.strip(), folder, f"http://127.0.0.1:{etcd_port}", ca, named, {}
    )
    try:
        for name in named:
            plane.start(name)
        yield plane
    finally:
        plane.stop()
