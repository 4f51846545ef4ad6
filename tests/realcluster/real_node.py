"""A node of the tests: the network namespace we run in, a real kube-proxy, and pods that are namespaces of their own.

A pod is one process (``tiny_pod``) in a network namespace that lives as long as it does, joined to the node by a veth
pair and a route. Its own nft table counts the connections that are opened to it: a judge that shares nothing with the
code under test.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.realcluster.control_plane import ControlPlane
from tests.realcluster.fake_kubelet import NODE

POD_PORT = 8080
POD_CIDR = "10.244.9.0/24"
COUNTING = """
table inet judge {
  chain in {
    type filter hook input priority 0;
    tcp dport 8080 tcp flags & (syn | ack) == syn counter
  }
}
"""
CONFIGURATION = {
    "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
    "kind": "KubeProxyConfiguration",
    "clusterCIDR": "10.244.0.0/16,fd00:10:244::/56",
    "hostnameOverride": NODE,
    "healthzBindAddress": "0.0.0.0:10256",
    "metricsBindAddress": "127.0.0.1:10249",
    "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
}
"""All else is the default, minSyncPeriod 1 s above all: what a cluster made by kubeadm has."""


def missing(binaries: Path | None) -> str:
    """Why no such node can be made here, or ""."""
    if binaries is None or not (binaries / "kube-proxy").exists():
        return "KUBEBUILDER_ASSETS has no kube-proxy"
    if os.geteuid():
        return "only root makes network namespaces that kube-proxy can write to"
    tools = [tool for tool in ("unshare", "ip", "nft", "iptables-nft-save", "conntrack") if not shutil.which(tool)]
    return f"no {', '.join(tools)}" if tools else ""


def run(*words: str, text: str | None = None) -> str:
    """The output of a command that has to succeed."""
    ran = subprocess.run(words, input=text, capture_output=True, text=True, timeout=20)
    if ran.returncode:
        raise RuntimeError(f"{' '.join(words)}: {ran.stderr}")
    return ran.stdout


@dataclass
class KubeProxy:
    """The real one, in ``mode`` (nftables or iptables)."""

    plane: ControlPlane
    binaries: Path
    mode: str
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        file = self.plane.folder / f"kube-proxy-{self.mode}.json"
        client = {"kubeconfig": str(self.plane.kubeconfig)}
        file.write_text(json.dumps(CONFIGURATION | {"mode": self.mode, "clientConnection": client}))
        with (self.plane.folder / f"kube-proxy-{self.mode}.log").open("ab") as log:
            command = [str(self.binaries / "kube-proxy"), f"--config={file}"]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def tell(self, number: int) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it without a word: its rules stay."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@contextlib.contextmanager
def kube_proxy(plane: ControlPlane, binaries: Path, mode: str) -> Iterator[KubeProxy]:
    """One that runs; nothing of it is left behind."""
    proxy = KubeProxy(plane, binaries, mode)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.kill()
        run("nft", "flush", "ruleset")
        subprocess.run(["conntrack", "-F"], capture_output=True, check=False)


@dataclass
class TinyPod:
    """One process in its own network namespace, reachable at ``ip`` from the node."""

    name: str
    number: int
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def ip(self) -> str:
        return f"10.244.9.{self.number}"

    @property
    def ip6(self) -> str:
        return f"fd00:10:244:9::{self.number:x}"

    @property
    def enter(self) -> tuple[str, ...]:
        """How a command begins that runs in its network namespace."""
        return ("nsenter", f"--net=/proc/{self.process.pid}/ns/net")

    def start(self) -> None:
        script = Path(__file__).with_name("tiny_pod.py")
        ours = os.stat("/proc/self/ns/net").st_ino
        command = ["unshare", "--net", sys.executable, str(script), str(POD_PORT), self.name]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        while os.stat(f"/proc/{self.process.pid}/ns/net").st_ino == ours:
            time.sleep(0.002)  # realtime: a real process enters its namespace
        there, here = f"eth{self.number}", f"tgv{self.number}"
        run("ip", "link", "add", here, "type", "veth", "peer", "name", there, "netns", str(self.process.pid))
        inside = f"link set lo up\nlink set {there} up\naddress add {self.ip}/32 dev {there}\n"
        inside += f"address add {self.ip6}/128 dev {there} nodad\nroute add 169.254.1.1 dev {there}\n"
        inside += f"route add default via 169.254.1.1 dev {there}\n"
        run(*self.enter, "ip", "-batch", "-", text=inside)
        outside = f"link set {here} up\naddress add 169.254.1.1/32 dev {here}\nroute add {self.ip}/32 dev {here}\n"
        run("ip", "-batch", "-", text=outside)
        run(*self.enter, "nft", "-f", "-", text=COUNTING)
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == b"listening\n"

    def opened(self) -> int:
        """Connections opened to it so far, as its own kernel counted their first packets."""
        shown = json.loads(run(*self.enter, "nft", "-j", "list", "table", "inet", "judge"))["nftables"]
        [rule] = [one["rule"] for one in shown if "rule" in one]
        [count] = [part["counter"]["packets"] for part in rule["expr"] if "counter" in part]
        return int(count)

    def stop(self, number: int = signal.SIGKILL) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait(10)


@contextlib.contextmanager
def tiny_pods(*names: str) -> Iterator[list[TinyPod]]:
    """Pods that run; their namespaces end with them."""
    found = [TinyPod(name, number) for number, name in enumerate(names, start=11)]
    try:
        for one in found:
            one.start()
        yield found
    finally:
        for one in found:
            if hasattr(one, "process"):
                one.stop()
