"""The node agent as the witness of a real kernel, programmed by a real, unmodified kube-proxy.

Everything runs in one network namespace of its own, "the node": control plane, kube-proxy, the agent and the
coordinator as processes; pods are namespaces within. The first test makes it and plays the others there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from tests.realcluster import control_plane
from tests.realcluster.fake_kubelet import NODE, fake_kubelet
from tests.realcluster.fence_trials import Trials
from tests.realcluster.objects import deployment, service
from tests.realcluster.real_node import POD_CIDR, kube_proxy, missing
from tests.realcluster.real_pods import join, node_kubelet
from tests.realcluster.scene import Scene
from tests.realcluster.stand_in import NAMESPACE_ADDRESS, callers_installed, own_address

from tidegate.agent import addon
from tidegate.agent.fencing import Fencing
from tidegate.kube.api import (
    DEPLOYMENTS,
    ENDPOINTSLICES,
    LEASES,
    NAMESPACES,
    PODS,
    SERVICES,
    Deletion,
    Patch,
)
from tidegate.kube.connect import open_api
from tidegate.kube.errors import ApiError
from tidegate.model.endpoint import Endpoint
from tidegate.model.names import SYSTEM_NAMESPACE, fence_name
from tidegate.observers.coordinator import LEASE_NAME
from tidegate.observers.linux import LinuxKernel

ADDRESS = "192.0.2.1"
SCRIPT = f"""
ip link set lo up && ip address add {ADDRESS}/32 dev lo && ip address add 2001:db8::1/128 dev lo nodad &&
ip route add 10.96.0.0/16 dev lo && ip -6 route add fd00:10:96::/112 dev lo && exec "$@"
"""
"""TEST-NET-1 (RFC 5737) and 2001:db8::/32 (RFC 3849), on the namespace's own loopback device: nothing can leave."""
CAPABILITIES = ("net_admin", "sys_ptrace", "sys_admin")
"""What docs/security.md says that the node agent has: nothing else is in its bounding set here."""
MODES = ("nftables", "iptables")
ROUNDS = 100
SECONDS = 3.0
IN_BETWEEN = re.compile("no epoch is shown|the rules changed during each of|came or went")
"""What is true of a kube-proxy that is just starting."""
FIGURES = "TIDEGATE_TEST_FIGURES"

pytestmark = pytest.mark.realcluster
inside = pytest.mark.skipif(own_address() != ADDRESS, reason="played in a network namespace of its own")


@pytest.mark.skipif(bool(own_address()), reason="we are inside it already")
def test_the_agent_holds_its_own_against_a_real_kube_proxy(capsys, tmp_path):
    if control_plane.assets() is None:
        pytest.skip(f"KUBEBUILDER_ASSETS has no {', '.join(control_plane.NEEDED)}")
    if why := missing(control_plane.assets()):
        pytest.skip(why)
    figures = tmp_path / "figures.txt"
    apart = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", SCRIPT, "sh"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", "kube_proxy_", __file__]
    environment = {**os.environ, NAMESPACE_ADDRESS: ADDRESS, FIGURES: str(figures)}
    ran = subprocess.run([*apart, *command], env=environment, capture_output=True, text=True, timeout=180)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "4 passed" in ran.stdout, ran.stdout
    with capsys.disabled():
        print("\n" + figures.read_text().rstrip())


def tell(line: str) -> None:
    """Keep a figure for whoever ran the tests."""
    with Path(os.environ.get(FIGURES, "/dev/null")).open("a") as file:
        file.write(line + "\n")


@contextlib.asynccontextmanager
async def node(plane):
    """An API client, once the node has joined and the fence's namespace is there."""
    async with open_api(kubeconfig=str(plane.kubeconfig)) as api:
        await join(api, ADDRESS)
        with contextlib.suppress(ApiError):
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}}
            await api.create(NAMESPACES, body)
        yield api


async def own_kernel(api):
    found = await api.get(SERVICES, fence_name("main"), SYSTEM_NAMESPACE)
    fences = dict.fromkeys(found["spec"]["clusterIPs"], "main")
    assert len(fences) == 2, "the control plane of the tests is dual-stack"
    return LinuxKernel(NODE, ADDRESS, lambda: fences, (POD_CIDR,))


async def until(condition, seconds=15.0):
    async with asyncio.timeout(seconds):
        while not (found := await condition()):
            await asyncio.sleep(0.02)
    return found


@inside
@pytest.mark.parametrize("mode", MODES)
async def test_kube_proxy_shows_routes_and_fence_and_fence_at_least_e_implies_no_route(real_cluster, mode):
    async with node(real_cluster) as api:
        fencing = Fencing(api, "main")
        first = await fencing.write()
        kernel = await own_kernel(api)
        with kube_proxy(real_cluster, control_plane.assets(), mode) as proxy:
            await _shows_exactly_the_endpoints(api, kernel, first.epoch, mode)
            trials = Trials(api, kernel, first.epoch, fencing, random.Random(4), f"churn-{mode}")
            await trials.run(proxy, SECONDS, ROUNDS)
        kernel.close()
    waits = sorted(1000 * (one.seen_at - one.sent_at) for one in trials.done)
    lies, early = sum(one.is_lie for one in trials.done), sum(one.is_early for one in trials.done)
    tell(
        f"{mode}: {len(trials.done)} cuts, {trials.readings} readings ({sum(trials.unreadable.values())} in between), "
        f"{len(trials.violations)} violations, "
        f"{lies} cuts where absence of the rule alone would have lied, {early} where an epoch of before the cut "
        f"stood beside the route; epoch written -> seen, ms: "
        f"p50 {statistics.median(waits):.0f}, p99 {waits[int(len(waits) * 0.99)]:.0f}, max {waits[-1]:.0f}"
    )
    assert not trials.violations, trials.violations[:5]
    assert len(trials.done) >= ROUNDS
    assert all(IN_BETWEEN.search(why) for why in trials.unreadable), trials.unreadable
    assert early, "too weak: an epoch written before the cut would have been as good"
    assert lies, "too weak: in no case would the absence of a rule have been wrong"


async def _shows_exactly_the_endpoints(api, kernel, epoch, mode):
    """Of a Service with both families, by ClusterIP and by NodePort."""
    name = f"exact-{mode}"
    ports = [{"port": 80, "targetPort": 8080}]
    spec = {"ipFamilyPolicy": "PreferDualStack", "type": "NodePort", "ports": ports}
    made = await api.create(
        SERVICES, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}, "default"
    )
    wanted = {"IPv4": ("10.244.70.1", "10.244.70.2"), "IPv6": ("fd00:10:244:70::1",)}
    for family, addresses in wanted.items():
        slice_ = {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
            "metadata": {"name": f"{name}-{family.lower()}", "labels": {"kubernetes.io/service-name": name}},
            "endpoints": [{"addresses": [one]} for one in addresses],
            "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        }  # fmt: skip
        await api.create(ENDPOINTSLICES, slice_, "default")
    node_port = made["spec"]["ports"][0]["nodePort"]
    frontends = {(address, 80) for address in made["spec"]["clusterIPs"]} | {("", node_port)}

    async def found():
        facts = (await kernel.read(None)).facts
        assert all(IN_BETWEEN.search(str(why)) for why in facts.unreadable), facts.unreadable
        mine = [route for route in facts.routes if route.service == f"default/{name}"]
        shown = {str(to) for route in mine for to in route.endpoints}
        is_whole = {(route.address, route.port) for route in mine} >= frontends
        all_reach = len(facts.fence) == 2 and all(one.reaches(epoch) for one in facts.fence)
        expected = {str(Endpoint(address, 8080)) for addresses in wanted.values() for address in addresses}
        return is_whole and all_reach and shown == expected

    await until(found)
    await api.delete(SERVICES, name, "default")


def of(*capabilities):
    """How a command begins that has these capabilities and no others, and can get no more."""
    kept = ",".join(["-all", *(f"+{one}" for one in capabilities)])
    return ["setpriv", "--no-new-privs", f"--bounding-set={kept}", "--inh-caps=-all"]


@contextlib.asynccontextmanager
async def tidegate_running(api, plane):
    """Agent and coordinator as processes of their own, as their pods would run them; pods/proxy leads to them."""
    environment = {
        **os.environ,
        "KUBECONFIG": str(plane.kubeconfig),
        "TIDEGATE_NODE": NODE,
        "TIDEGATE_NODE_ADDRESS": ADDRESS,
        "TIDEGATE_AGENT_SOCKET": str(plane.folder / "agent.sock"),
        "TIDEGATE_POD": "tidegate-coordinator",
    }
    pods = [one for one in addon.manifests(addon.Site("", ((NODE, ADDRESS),), "", "", "")) if one["kind"] == "Pod"]
    await callers_installed(api)
    async with fake_kubelet(api, SYSTEM_NAMESPACE) as kubelet:
        kubelet.node_address = ADDRESS
        for one in pods:
            await until(lambda one=one: _created(api, one))
        roles = [
            subprocess.Popen(
                [*capable, sys.executable, "-m", "tidegate", "agent", role],
                env=environment,
                stderr=(plane.folder / f"{role}.log").open("ab"),
            )
            for role, capable in (("node", of(*CAPABILITIES)), ("coordinator", of()))
        ]
        try:
            await until(lambda: _is_led(api))
            yield roles[0]
        finally:
            for process in roles:
                process.kill()
                process.wait()
            for one in pods:
                await api.delete(PODS, one["metadata"]["name"], SYSTEM_NAMESPACE, Deletion(0))
            with contextlib.suppress(ApiError):
                await api.delete(LEASES, LEASE_NAME, SYSTEM_NAMESPACE)


async def _created(api, pod):
    """The namespace's service account may not be there yet: pods are refused before."""
    try:
        return await api.create(PODS, pod)
    except ApiError:
        return None


async def _is_led(api):
    with contextlib.suppress(ApiError):
        return (await api.get(LEASES, LEASE_NAME, SYSTEM_NAMESPACE))["spec"].get("holderIdentity")
    return None


@contextlib.asynccontextmanager
async def web(api, plane, namespace, replicas=2):
    """A Deployment whose pods run, behind a dual-stack Service; its scene, kubelet and ClusterIP."""
    await api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    async with node_kubelet(api, namespace) as kubelet:
        made = await api.create(SERVICES, service("web", ipFamilyPolicy="PreferDualStack"), namespace)
        wanted = deployment("web", replicas=replicas)
        wanted["spec"]["template"]["spec"]["nodeName"] = NODE
        await api.create(DEPLOYMENTS, wanted, namespace)
        scene = Scene(api, namespace, str(plane.kubeconfig))

        async def is_routed():
            return len(await scene.routed()) == 2 * replicas

        await scene.until(is_routed)
        yield scene, kubelet, made["spec"]["clusterIP"]
        await api.patch(DEPLOYMENTS, "web", Patch({"spec": {"replicas": 0}}), namespace)


@contextlib.contextmanager
def load(host):
    """A load through ``host``; what it says at its end is in the list."""
    script = Path(__file__).with_name("tiny_load.py")
    process = subprocess.Popen([sys.executable, str(script), host, "80", "100"], stdout=subprocess.PIPE, text=True)
    told = []
    try:
        yield told
        process.terminate()
        told.append(json.loads(process.communicate(timeout=15)[0]))
    finally:
        process.kill()
        process.wait()


async def _answers(host):
    """One try, on a port of its own: a SYN that went out before there were rules is never sent by them."""
    try:
        async with asyncio.timeout(0.3):
            _, writer = await asyncio.open_connection(host, 80)
        writer.close()
    except (OSError, TimeoutError):
        return False
    return True


@inside
@pytest.mark.parametrize("mode", MODES)
async def test_kube_proxy_lets_go_of_a_drained_pod_and_is_named_while_it_stands_still(real_cluster, mode):
    async with node(real_cluster) as api:
        with kube_proxy(real_cluster, control_plane.assets(), mode) as proxy:
            scenery = web(api, real_cluster, f"drained-{mode}")
            async with tidegate_running(api, real_cluster) as agent, scenery as (here, kubelet, host):
                await until(lambda: _answers(host))
                await _drained_under_load(here, kubelet, host, mode)
                await _named_while_it_stands_still(here, proxy, mode)
                status = Path(f"/proc/{agent.pid}/status").read_text()
    [peak] = re.findall(r"VmHWM:\s+(\d+) kB", status)
    tell(f"{mode}: the agent's memory, at most: {int(peak) / 1024:.0f} MiB")
    assert re.findall(r"CapBnd:\s+(\w+)", status) == [f"{sum(1 << one for one in (12, 19, 21)):016x}"]


async def _drained_under_load(here, kubelet, host, mode):
    """Nothing is lost, and the pod's own kernel saw no connection after the release."""
    name = (await here.names())[0]
    with load(host) as told:
        await asyncio.sleep(0.5)
        ran = await here.tidegate("drain", f"pod/{name}", "--yes", "-o", "json")
        assert ran.code == 0, ran.out + ran.err
        await until(lambda: _released(kubelet))
        await asyncio.sleep(0.3)
    document = json.loads(ran.out)
    [release] = kubelet.releases
    tell(
        f"{mode}: a drain under load: {document['result']}; {told[0]['sent']} new connections and "
        f"{told[0]['kept']} requests on kept ones, {told[0]['lost']} lost; "
        f"the pod's kernel counted {release.before} connections, {release.after - release.before} after the release"
    )
    assert (document["result"], document["stragglers"]) == ("verified", [])
    assert told[0]["lost"] == 0, told
    assert release.name == name and release.before > 10, "too weak: the load did not reach the pod"
    assert release.after == release.before, "connections came after the drain was called verified"


async def _released(kubelet):
    return kubelet.releases


async def _named_while_it_stands_still(here, proxy, mode):
    """A stopped kube-proxy's rules still send to the pod: it is not verified, the node is named, the pod stays."""
    name = (await here.names())[0]
    drain = ("drain", f"pod/{name}", "--yes", "--no-replace")
    proxy.tell(signal.SIGSTOP)
    ran = await here.tidegate(*drain, "--timeout", "1500ms")
    assert ran.code == 4 and "timed-out" in ran.out and NODE in ran.out, ran.out + ran.err
    kept = await here.api.get(PODS, name, here.namespace)
    assert "deletionTimestamp" not in kept["metadata"]
    proxy.tell(signal.SIGCONT)
    again = await here.tidegate(*drain)
    assert again.code == 0 and "verified" in again.out, again.out + again.err
    tell(f"{mode}: kube-proxy stopped: {next(line for line in ran.out.splitlines() if NODE in line).strip()}")
