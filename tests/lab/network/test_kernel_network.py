"""Network ``kernel``: a lab whose nodes and pods have networks of their own and netfilter between them. Root."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys

import pytest

from tidegate import vtime
from tidegate.client.verify import VerifyOptions, verify_pod
from tidegate.kube.api import DEPLOYMENTS, PODS, SERVICES, Deletion, Patch
from tidegate.lab import boot
from tidegate.lab.runtime import processes
from tidegate.rehearse.real import open_stage
from tidegate.rehearse.settings import Row, Settings
from tidegate.rehearse.story import rehearse

from .kernel_lab import KernelLab, ask, ask_by_datagram, datagrams, standing, up, web, why_not, within

pytestmark = [pytest.mark.realtime, pytest.mark.skipif(bool(why_not()), reason=why_not() or "it can")]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Two nodes with agents, and echo pods behind the Service ``web``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIDEGATE_STATE", str(tmp_path_factory.mktemp("state")))
        found = up(f"net-{os.getpid()}")
        try:
            found.apply(*web("web"), *datagrams("names"))
            found.pods("web", ready=2)
            found.pods("names", ready=2)
            yield found
        finally:
            found.running.close()


def service(lab: KernelLab, name: str) -> tuple[str, int, int]:
    """(ClusterIP, port, NodePort)."""
    spec = lab.do(lambda api: api.get(SERVICES, name, "default"))["spec"]
    return spec["clusterIP"], spec["ports"][0]["port"], spec["ports"][0]["nodePort"]


def names(lab: KernelLab, app: str) -> set[str]:
    return {pod["metadata"]["name"] for pod in lab.pods(app, ready=2)}


def answering(place: str, host: str, port: int, tries: int = 20) -> set[str]:
    return {ask(place, host, port)["pod"] for _ in range(tries)}


def is_answered_by(wanted: set[str], *where) -> bool:
    """Whether they answer, and nobody else does, once the node's rules say so."""

    def is_so() -> bool:
        with contextlib.suppress(OSError):
            return answering(*where) == wanted
        return False

    return within(3, is_so)


def test_a_service_answers_by_its_cluster_ip_to_nodes_and_pods(lab):
    address, port, _ = service(lab, "web")
    pods = lab.pods("web", ready=2)
    for place in (*(lab.places[node] for node in lab.nodes), *map(lab.place_of, pods)):
        assert is_answered_by(names(lab, "web"), place, address, port)  # by itself too, to a pod: the hairpin


def test_a_client_outside_reaches_node_ports_on_every_node_and_no_cluster_ip(lab):
    address, port, node_port = service(lab, "web")
    for node in lab.nodes.values():
        assert is_answered_by(names(lab, "web"), lab.places["client"], node, node_port)
    with pytest.raises(OSError):
        ask(lab.places["client"], address, port, 0.3)
    with pytest.raises(OSError):
        ask(lab.places["client"], lab.pods("web")[0]["status"]["podIP"], 8080, 0.3)


def test_datagrams_go_by_cluster_ip_and_node_port(lab):
    address, port, node_port = service(lab, "names")
    wanted = names(lab, "names")
    assert within(3, lambda: {ask_by_datagram(lab.places["node-1"], address, port) for _ in range(20)} == wanted)
    assert ask_by_datagram(lab.places["client"], lab.nodes["node-2"], node_port) in wanted


def test_a_pod_sees_its_own_network_alone(lab):
    pod = lab.pods("web", ready=2)[0]
    with standing(lab.place_of(pod)):
        shown = subprocess.run(["ip", "-o", "-4", "address"], capture_output=True, text=True, check=True).stdout
    assert [line.split()[3] for line in shown.splitlines()] == ["127.0.0.1/8", f"{pod['status']['podIP']}/32"]


def test_the_host_has_no_link_and_no_address_of_it(lab):
    shown = subprocess.run(["ip", "-o", "address"], capture_output=True, text=True, check=True).stdout
    assert not [line for line in shown.splitlines() if line.split()[1].startswith(("veth", "cni", "fabric", "node-"))]
    assert not [address for address in lab.nodes.values() if f" {address}/" in shown]


def test_exec_logs_and_port_forward_reach_into_the_pod(lab):
    pod = lab.pods("web", ready=2)[0]
    name, environment = pod["metadata"]["name"], {**os.environ, "KUBECONFIG": str(lab.running.folder.kubeconfig)}

    def kubectl(*words: str) -> str:
        ran = subprocess.run(["kubectl", *words], env=environment, capture_output=True, text=True, timeout=20)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    assert pod["status"]["podIP"] in kubectl("exec", name, "--", "ip", "address")
    assert f"listening on {pod['status']['podIP']}:8080" in kubectl("logs", name)
    assert f'"pod": "{name}"' in kubectl("get", "--raw", f"/api/v1/namespaces/default/pods/{name}:8080/proxy/")
    with forwarded(environment, name, 8080) as port:
        assert ask("/proc/self/ns/net", "127.0.0.1", port)["pod"] == name
    with forwarded(environment, "-n", "tidegate-system", "tidegate-agent-node-1", 15299) as port:
        with standing("/proc/self/ns/net"), socket.create_connection(("127.0.0.1", port), timeout=2) as held:
            held.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert b"404" in held.recv(100)  # the holder, which listens on its node's localhost alone


@contextlib.contextmanager
def forwarded(environment: dict[str, str], *words: str | int):
    """``kubectl port-forward``; the last word is the pod's port, what comes is the port here."""
    *pod, port = words
    command = ["kubectl", "port-forward", *map(str, pod), f":{port}"]
    forward = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert forward.stdout is not None
        yield int(forward.stdout.readline().split("->")[0].rpartition(":")[2])
    finally:
        forward.kill()
        forward.communicate()


def test_the_lab_is_entered_by_command(lab):
    command = [sys.executable, "-m", "tidegate", "lab", "enter", "--lab", lab.running.folder.name]
    on_node = subprocess.run([*command, "--node", "node-2", "--", "ip", "address"], capture_output=True, text=True)
    outside = subprocess.run([*command, "--", "kubectl", "get", "pods", "-o", "name"], capture_output=True, text=True)
    nowhere = subprocess.run([*command, "--node", "node-9", "--", "true"], capture_output=True, text=True)
    assert f"{lab.nodes['node-2']}/24" in on_node.stdout
    assert len(outside.stdout.split()) == 4
    assert (nowhere.returncode, "has no node" in nowhere.stderr) == (1, True)


def test_agents_read_the_real_kernel_and_a_cut_pod_gets_nothing_more(lab):
    address, port, _ = service(lab, "web")
    pod = lab.pods("web", ready=2)[0]["metadata"]["name"]

    def verified():
        return lab.do(lambda api: verify_pod(api, "default", pod, VerifyOptions(timeout_seconds=10, probes=5)))

    before = verified()
    assert all("nftables" in word.evidence for word in before.nodes)
    assert {word.verdict for word in before.nodes} == {"route"}
    assert sum(one.reached for one in before.tried) > 0
    cut = Patch({"metadata": {"labels": {"app": "cut"}}}, style="merge")
    lab.do(lambda api: api.patch(PODS, pod, cut, "default"))
    lab.pods("web", ready=2)
    after = verified()
    assert {word.verdict for word in after.nodes} == {"no-route"}
    assert sum(one.reached for one in after.tried) == 0
    assert pod not in answering(lab.places["node-1"], address, port, 30)
    lab.do(lambda api: api.delete(PODS, pod, "default", Deletion(grace_seconds=0)))


def test_a_pod_that_is_gone_refuses_nobody_any_more_its_clients_wait(lab):
    """What a plain rollout's losses are: the address is nobody's, so nothing answers."""
    [obj] = lab.apply(web("short", replicas=1)[0])
    pod = lab.pods("short", ready=1)[0]
    assert ask(lab.places["node-2"], pod["status"]["podIP"], 8080)["pod"] == pod["metadata"]["name"]
    lab.do(lambda api: api.delete(DEPLOYMENTS, obj["metadata"]["name"], "default", Deletion(propagation="Background")))
    assert within(5, lambda: not lab.pods("short"))
    with pytest.raises(TimeoutError):
        ask(lab.places["node-2"], pod["status"]["podIP"], 8080, 0.5)


def test_a_rollout_through_the_gate_is_verified_and_loses_nothing_where_a_plain_one_loses(lab):
    rows = (Row("plain"), Row("tidegate", "gate"))
    settings = Settings(
        rows, replicas=2, new_per_second=80, pool_per_second=20, requests_min=0, late_fraction_max=1,
        startup_seconds=0, before_seconds=0.2, after_seconds=0.2, max_surge=1, max_unavailable=0,
    )  # fmt: skip

    async def play():
        async with open_stage(lab.running.folder, lab.running.record) as stage:
            return await rehearse(stage, settings)

    with asyncio.Runner(loop_factory=vtime.new_event_loop) as runner:
        plain, gated = runner.run(play()).runs
    assert plain.tally.dropped > 0
    assert gated.tally.dropped == 0
    assert [drain.result for drain in gated.drains] == ["verified"] * 2
    assert gated.contradictions == ()


@pytest.mark.parametrize("role", ["lab", "zygote", "reaper"])
def test_whatever_is_killed_no_namespace_is_left(role, tmp_path, monkeypatch):
    """What we hold open of it is bare: its link to the fabric and those to its pods ended with their other ends."""
    monkeypatch.setenv("TIDEGATE_STATE", str(tmp_path))
    name = f"gone-{os.getpid()}-{role}"
    lab = up(name, nodes=1, addons=())
    held = os.open(lab.places["node-1"], os.O_RDONLY)
    try:
        lab.apply(web("web", replicas=1)[0])
        lab.pods("web", ready=1)
        reaper = lab.running.record.pid
        process = processes.children(reaper)[0]
        victims = {"lab": process, "zygote": processes.children(process)[0], "reaper": reaper}
        assert {"eth0", "cni0", "veth1"} <= set(links(held))
        os.kill(victims[role], 9)
        if role == "zygote":
            lab.running.close()  # the next container would start another: a lab goes on without one
        assert within(5, lambda: processes.marked(name) == [])
        assert within(5, lambda: set(links(held)) <= {"lo", "cni0", "tunl0", "sit0", "gre0", "gretap0", "erspan0"})
    finally:
        os.close(held)
        lab.running.close()
        boot.stop(name)


def links(descriptor: int) -> list[str]:
    with standing(f"/proc/self/fd/{descriptor}"):
        return [name for _, name in socket.if_nameindex()]
