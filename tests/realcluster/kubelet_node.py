"""A node with a real kubelet: containerd, kubelet and kube-proxy, on a machine of its own (``apart``)."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.realcluster import apart, pod_image
from tests.realcluster.control_plane import ControlPlane

NODE = "real-node"
POD_NETWORK = "10.244.9.0/24"
CNI_PLUGINS = next((Path(one) for one in ("/opt/cni/bin", "/usr/lib/cni") if Path(one, "bridge").exists()), Path("/"))
SOCKET = "/run/containerd/containerd.sock"
CONTAINERD = """
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "%s"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "%s"
    conf_dir = "%s"
"""
NETWORK = {
    "cniVersion": "1.0.0",
    "name": "pods",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "hairpinMode": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": POD_NETWORK}]], "routes": [{"dst": "0.0.0.0/0"}]},
        }
    ],
}
KUBELET = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "kind": "KubeletConfiguration",
    "containerRuntimeEndpoint": f"unix://{SOCKET}",
    "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
    "authorization": {"mode": "AlwaysAllow"},
    "cgroupDriver": "cgroupfs",
    "failCgroupV1": False,
    "failSwapOn": False,
    "enforceNodeAllocatable": [],
    "makeIPTablesUtilChains": False,
    "resolvConf": "",
    "evictionHard": {"memory.available": "1Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
    "imageGCHighThresholdPercent": 100,
    "imageGCLowThresholdPercent": 99,
    # Stories kill the same container one after another. The second restart within 10 min would wait 10 to 15 s
    # (back-off and pod_workers' jitter of a half), as long as the holder sleeps: too late to record on a pod what
    # became of it.
    "crashLoopBackOff": {"maxContainerRestartPeriod": "1s"},  # KEP-4603, on by default since v1.35
}
"""What a sandboxed machine needs; all that a drain is about (grace, hooks, probes) is the default."""
PROXY = {
    "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
    "kind": "KubeProxyConfiguration",
    "mode": "nftables",
    "clusterCIDR": "10.244.0.0/16",
    "hostnameOverride": NODE,
    "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
}
"""All else is the default, minSyncPeriod 1 s above all: what a cluster made by kubeadm has."""


def missing(binaries: Path | None) -> str:
    """Why no such node can be made here, or ""."""
    if binaries is None:
        return "KUBEBUILDER_ASSETS has no control plane"
    absent = [name for name in ("kubelet", "kube-proxy") if not (binaries / name).exists()]
    if absent:
        return f"KUBEBUILDER_ASSETS has no {', '.join(absent)}"
    tools = ("containerd", "ctr", "runc", "nft", "conntrack", "ip", "unshare", "setpriv")
    absent = [tool for tool in tools if not shutil.which(tool)]
    if absent:
        return f"no {', '.join(absent)}"
    if not (CNI_PLUGINS / "bridge").exists():
        return "no CNI plugins (Debian: containernetworking-plugins)"
    if not pod_image.is_static(pod_image.BUSYBOX):
        return f"no static {pod_image.BUSYBOX} (Debian: busybox-static)"
    return apart.missing()


def until(holds: Callable[[], object], what: str, seconds: float = 30) -> None:
    """Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} within {seconds:g} s")
        time.sleep(0.05)  # realtime: real processes boot


@dataclass
class KubeletNode:
    """``folder`` has the logs, configuration files beside them; processes by program."""

    plane: ControlPlane
    binaries: Path
    folder: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self) -> None:
        """All of it; the images are there when this returns, the Node object soon after."""
        networks = self.folder / "cni"
        networks.mkdir()
        (networks / "10-pods.conflist").write_text(json.dumps(NETWORK))
        settings = CONTAINERD % (pod_image.PAUSE_IMAGE, CNI_PLUGINS, networks)
        self._run("containerd", "containerd", "--config", self._file("containerd.toml", settings))
        until(lambda: self._ctr("version").returncode == 0, "containerd answers")
        images = self.folder / "images.tar"
        pod_image.archive(images)
        imported = self._ctr("images", "import", "--all-platforms", str(images))
        if imported.returncode:
            raise RuntimeError(f"ctr images import: {imported.stderr}")
        self.start_kubelet()
        client = {"kubeconfig": str(self.plane.kubeconfig)}
        settings = self._file("kube-proxy.json", json.dumps({**PROXY, "clientConnection": client}))
        self._run("kube-proxy", str(self.binaries / "kube-proxy"), f"--config={settings}")

    def start_kubelet(self) -> None:
        """Also after ``kill("kubelet")``."""
        settings = self._file("kubelet.json", json.dumps(KUBELET))
        command = [str(self.binaries / "kubelet"), f"--config={settings}", f"--kubeconfig={self.plane.kubeconfig}"]
        self._run("kubelet", *command, f"--hostname-override={NODE}", f"--node-ip={apart.ADDRESS}", "--v=2")

    def kill(self, name: str) -> None:
        """End a program of it without a word; its containers stay."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def inside(self, pod_uid: str, container: str = "app") -> list[int]:
        """The process ids of a running container, its process 1 first."""
        query = f'labels."io.kubernetes.pod.uid"=={pod_uid},labels."io.kubernetes.container.name"=={container}'
        listed = self._ctr("containers", "list", "--quiet", query).stdout.split()
        tasks = [line.split() for line in self._ctr("tasks", "list").stdout.splitlines()]
        return [int(task[1]) for task in tasks if task[0] in listed and task[2] == "RUNNING"]

    def _ctr(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = ["ctr", "--address", SOCKET, "--namespace", "k8s.io", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=30)

    def _file(self, name: str, content: str) -> str:
        path = self.folder / name
        path.write_text(content)
        return str(path)

    def _run(self, name: str, *command: str) -> None:
        # containerd keeps shims and mounts below /run and /var/lib: fresh ones, of this machine alone.
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "TZ": "UTC"})


@contextlib.contextmanager
def kubelet_node(plane: ControlPlane, binaries: Path, folder: Path) -> Iterator[KubeletNode]:
    """One that runs. Its containers are left to the end of the machine (``apart``)."""
    node = KubeletNode(plane, binaries, folder)
    try:
        node.start()
        yield node
    finally:
        for name in list(node.processes):
            node.kill(name)
