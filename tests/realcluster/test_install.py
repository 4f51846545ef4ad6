"""What ``tidegate install`` prints, judged by a real API server: taken as it is, and nobody may do more than it says.

A control plane of its own, for an installation is of a whole cluster. The stories are told in their order.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.realcluster import control_plane
from tests.realcluster.scene import scene

from tidegate.agent import roles
from tidegate.agent.coordinator import Coordinator, CoordinatorSettings
from tidegate.agent.ground import LinuxGround
from tidegate.agent.manifests import Installation, pieces
from tidegate.client.permissions import VERBS, Deed, deeds_of, review
from tidegate.drain import fence
from tidegate.kube import wire
from tidegate.kube.api import ENDPOINTSLICES, LEASES, NODES, PODS, SECRETS, Patch
from tidegate.kube.connect import open_api, open_cluster
from tidegate.kube.errors import ApiError, Unreachable
from tidegate.kube.exchange import Request
from tidegate.kube.kubeconfig import Cluster
from tidegate.kube.tls import Credentials, unverified_client
from tidegate.model.names import COORDINATOR_PORT, CUT_VALUE, OPERATOR, SYSTEM_NAMESPACE, fence_name
from tidegate.observers.asking import (
    ACCOUNT,
    ASK_ANNOTATION,
    AUDIENCE,
    COORDINATOR_ASK_PORT,
    COORDINATOR_NAME,
    TOKEN_HEADER,
)
from tidegate.observers.coordinator import LEASE_NAME, STATUS_PATH
from tidegate.observers.discovery import SOURCES
from tidegate.release.spec import STRATEGIES

pytestmark = pytest.mark.realcluster
BIN = Path(sys.executable).parent
SHOP = "shop"
ASKED = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
SPECIAL = {
    ("impersonate", "", "users"), ("impersonate", "", "groups"), ("impersonate", "", "serviceaccounts"),
    *(
        (verb, roles.GROUP, kind)
        for verb in ("bind", "escalate")
        for kind in ("roles", "clusterroles")
    ),
}  # fmt: skip
AT_ONCE = 24


@pytest.fixture(scope="module")
def plane(tmp_path_factory):
    binaries = control_plane.assets()
    if binaries is None:
        pytest.skip(f"KUBEBUILDER_ASSETS has no {', '.join(control_plane.NEEDED)}")
    with control_plane.running(tmp_path_factory.mktemp("install"), binaries) as one:
        yield one


def run(plane, *words, text="", code=0, program="kubectl"):
    environment = {**os.environ, "KUBECONFIG": str(plane.kubeconfig), "PATH": f"{BIN}:{os.environ['PATH']}"}
    ran = subprocess.run([program, *words], input=text, capture_output=True, text=True, env=environment, timeout=90)
    assert ran.returncode == code, (words, ran.stdout, ran.stderr)
    return ran.stdout


def tidegate(plane, *words, code=0):
    return run(plane, "-m", "tidegate", *words, program=sys.executable, code=code)


@pytest.fixture(scope="module")
def installed(plane):
    """Exactly what is printed, by kubectl, every field known to the server."""
    run(plane, "create", "--validate=strict", "-f", "-", text=tidegate(plane, "install", "--print"))
    run(plane, "create", "namespace", SHOP)
    return plane


def as_account(plane, name, namespace=SYSTEM_NAMESPACE):
    """A client with the service account's own token."""
    token = run(plane, "create", "token", name, "-n", namespace).strip()
    return open_cluster(Cluster(plane.server, ca=plane.ca.certificate.read_bytes(), token=token))


def bind(plane, name, chosen):
    """A service account in SHOP with these roles, bound as their comments say."""
    run(plane, "create", "serviceaccount", name, "-n", SHOP)
    subject = f"--serviceaccount={SHOP}:{name}"
    for role in chosen:
        if role in roles.CLUSTER_WIDE:
            run(plane, "create", "clusterrolebinding", f"{name}-{role}", f"--clusterrole={role}", subject)
        elif role == roles.ASK:
            run(plane, "create", "rolebinding", f"{name}-{role}", "-n", SYSTEM_NAMESPACE, f"--role={role}", subject)
        else:
            run(plane, "create", "rolebinding", f"{name}-{role}", "-n", SHOP, f"--clusterrole={role}", subject)


async def asked_all(api, deeds):
    found = {}
    for at in range(0, len(deeds), AT_ONCE):
        found |= await review(api, deeds[at : at + AT_ONCE])
    return {deed for deed, is_allowed in found.items() if is_allowed}


async def everything(admin):
    """(group, resource) of all that the server serves, and of other people's kinds that we look at."""
    found = [tuple(plural.split(".", 1)) for plural in SOURCES]
    found = [(group, plural) for plural, group in found] + [("monitoring.coreos.com", "podmonitors")]

    async def get(path):
        return json.loads(await (await admin.request(Request("GET", path))).read())

    groups = [("", "/api/v1")]
    for one in (await get("/apis"))["groups"]:
        groups += [(one["name"], f"/apis/{version['groupVersion']}") for version in one["versions"]]
    for group, path in groups:
        found += [(group, one["name"]) for one in (await get(path))["resources"]]
    return list(dict.fromkeys(found))


def allowed_by(name, chosen, space):
    """What the printed rules say of somebody: (where, verb, group, resource), where a rule asks for no name."""
    found = set()
    for piece in pieces(Installation("x")):
        one = piece.manifest
        if "rules" not in one or one["metadata"]["name"] not in chosen:
            continue
        own = one["metadata"].get("namespace")
        is_wide = one["kind"] == "ClusterRole" and (name in chosen or one["metadata"]["name"] in roles.CLUSTER_WIDE)
        places = ("", SHOP, SYSTEM_NAMESPACE) if is_wide else (own or space,)
        for rule in one["rules"]:
            if "resourceNames" not in rule:
                found |= {
                    Deed(verb, resource, place, group)
                    for place in places
                    for verb in rule["verbs"]
                    for group in rule["apiGroups"]
                    for resource in rule["resources"]
                }
    return found


WHO = {
    roles.AGENT: (roles.AGENT,),
    roles.COORDINATOR: (roles.COORDINATOR,),
    OPERATOR: (OPERATOR, roles.RELEASE),
    "drainer": roles.VERB_ROLES["drain"],
    "preparer": roles.VERB_ROLES["prepare"],
}


@pytest.mark.parametrize("name", WHO)
async def test_with_its_own_token_everybody_may_do_what_the_rules_say_and_nothing_else(installed, name):
    is_person = name not in (roles.AGENT, roles.COORDINATOR, OPERATOR)
    space = SHOP if is_person else SYSTEM_NAMESPACE
    if is_person:
        bind(installed, name, WHO[name])
    run(installed, "create", "serviceaccount", f"{name}-nobody", "-n", space)
    async with open_api(kubeconfig=str(installed.kubeconfig)) as admin:
        served = await everything(admin)
    deeds = [
        Deed(verb, resource, place, group)
        for group, resource in served
        for verb in ASKED
        for place in ("", SHOP, SYSTEM_NAMESPACE)
    ]
    deeds += [Deed(verb, resource, "", group) for verb, group, resource in sorted(SPECIAL)]
    async with as_account(installed, f"{name}-nobody", space) as api:
        anybody = await asked_all(api, deeds)
    async with as_account(installed, name, space) as api:
        may = await asked_all(api, deeds)
    assert {deed.group for deed in anybody} <= {"authorization.k8s.io", "authentication.k8s.io"}
    told = allowed_by(name, WHO[name], SHOP)
    assert {str(deed) for deed in may - anybody} == {str(deed) for deed in told}
    assert len(deeds) > 2000 and len(told) > 10


@pytest.mark.parametrize("verb", VERBS)
async def test_the_roles_of_a_verb_allow_all_its_deeds(installed, verb):
    name = f"ann-{verb.replace(' ', '-')}"
    bind(installed, name, roles.VERB_ROLES[verb])
    async with as_account(installed, name, SHOP) as api:
        for is_witnessed in (True, False):
            found = await review(api, deeds_of(verb, SHOP, is_witnessed))
            assert not [str(deed) for deed, is_allowed in found.items() if not is_allowed]
        beyond = [Deed("delete", "pods", SHOP), Deed("patch", "nodes", ""), Deed("create", "services", SHOP)]
        may = {deed.resource for deed, is_allowed in (await review(api, beyond)).items() if is_allowed}
        assert may == {
            "vouch": {"nodes"},
            "drain": {"pods"},
            "restore": {"pods"},
            "drain node": {"pods", "nodes"},
            "prepare": {"services"},
            **{f"release {name}": {"pods", "services"} for name in STRATEGIES},
        }.get(verb, set())


async def test_status_cut_and_drain_are_done_with_the_roles_token(installed):
    bind(installed, "ann", roles.VERB_ROLES["drain"])
    token = run(installed, "create", "token", "ann", "-n", SHOP).strip()
    config = yaml.safe_load(installed.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    config["clusters"][0]["cluster"] = {
        "server": installed.server,
        "certificate-authority-data": base64.b64encode(installed.ca.certificate.read_bytes()).decode(),
    }
    own = installed.folder / "ann.yaml"
    own.write_text(yaml.safe_dump(config))
    async with scene(installed, "stall") as here:
        for role in roles.VERB_ROLES["drain"]:
            if role not in (*roles.CLUSTER_WIDE, roles.ASK):
                run(installed, "create", "rolebinding", role, "-n", "stall", f"--clusterrole={role}",
                    f"--serviceaccount={SHOP}:ann")  # fmt: skip
        here.kubeconfig = str(own)
        status = await here.tidegate("status", "svc/web")
        assert status.code == 0 and "cannot be read" not in status.out, status
        first, second = (await here.names())[:2]
        # Nobody is waited for: what is proven without agents is another story, this one is about what is allowed.
        cut = await here.tidegate("cut", f"pod/{first}", "--yes", "--timeout", "2s")
        assert cut.code == 4 and "forbidden" not in cut.out + cut.err, cut
        words = ("--no-replace", "--yes", "--timeout", "2s", "--on-deadline", "proceed")
        drained = await here.tidegate("drain", f"pod/{second}", *words)
        assert drained.code == 4 and "forbidden" not in drained.out + drained.err, drained
        found = await here.api.get(PODS, first, here.namespace)
        assert found["metadata"]["labels"]["app"] == CUT_VALUE
        assert second not in await here.names()
        here.namespace = "default"
        refused = await here.tidegate("drain", "pod/whichever", "--yes")
        assert refused.code == 1 and "forbidden" in refused.err, refused


async def test_the_coordinator_leads_and_writes_the_fence_with_its_own_token(installed):
    lines = []
    async with as_account(installed, roles.COORDINATOR) as api:
        coordinator = Coordinator(api, CoordinatorSettings("one", "127.0.0.1"), lines.append)
        running = asyncio.create_task(coordinator.run())
        try:
            async with open_api(kubeconfig=str(installed.kubeconfig)) as admin, asyncio.timeout(20):
                while True:
                    with contextlib.suppress(ApiError):
                        name = fence.slice_name("main", "IPv6")
                        if fence.read_slice(await admin.get(ENDPOINTSLICES, name, SYSTEM_NAMESPACE)).number:
                            break
                    await asyncio.sleep(0.1)
                # One that somebody takes away is made anew, so `create` is needed too.
                run(installed, "delete", "service", fence_name("main"), "-n", SYSTEM_NAMESPACE)
                run(installed, "delete", "endpointslice", name, "-n", SYSTEM_NAMESPACE, "--ignore-not-found")
                while not any("written again" in line for line in lines) or "epoch" not in lines[-1]:
                    await asyncio.sleep(0.1)
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
    assert not [line for line in lines if "forbidden" in line], lines


async def test_the_coordinators_process_makes_its_certificates_with_its_own_token(installed, tmp_path):
    address, folder = "127.0.0.77", tmp_path / "tls"
    token = run(installed, "create", "token", roles.COORDINATOR, "-n", SYSTEM_NAMESPACE).strip()
    config = yaml.safe_load(installed.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    own = installed.kubeconfig.with_name("coordinator.yaml")
    own.write_text(yaml.safe_dump(config))
    environment = {
        **os.environ, "KUBECONFIG": str(own), "TIDEGATE_POD": "two", "TIDEGATE_NODE_ADDRESS": address,
        "TIDEGATE_TLS_DIR": str(folder), "TIDEGATE_TLS_ISSUE": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "tidegate", "agent", "coordinator"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            async with open_api(kubeconfig=str(installed.kubeconfig)) as admin, asyncio.timeout(30):
                while True:
                    with contextlib.suppress(ApiError):
                        lease = await admin.get(LEASES, LEASE_NAME, SYSTEM_NAMESPACE)
                        if lease["spec"].get("holderIdentity") == "two":
                            break
                    await asyncio.sleep(0.1)
                assert lease["metadata"]["annotations"][ASK_ANNOTATION] == f"https:{COORDINATOR_ASK_PORT}"
                secret = await admin.get(SECRETS, "tidegate-agent-tls", SYSTEM_NAMESPACE)
                agent = tmp_path / "agent"
                agent.mkdir()
                for name, text in secret["data"].items():
                    (agent / name).write_bytes(base64.b64decode(text))
                peer = wire.Peer(
                    address, COORDINATOR_PORT, tls=Credentials(str(agent)).client(), tls_name=COORDINATOR_NAME
                )
                assert (await wire.fetch(peer, Request("GET", "/healthz")))[0] == 200
                asked = wire.Peer(address, COORDINATOR_ASK_PORT, tls=unverified_client())
                made = run(
                    installed, "create", "token", ACCOUNT, "-n", SYSTEM_NAMESPACE, "--audience", AUDIENCE
                ).strip()
                for headers, code in (({}, 401), ({TOKEN_HEADER: token}, 401), ({TOKEN_HEADER: made}, 200)):
                    assert (await wire.fetch(asked, Request("GET", STATUS_PATH, (), headers)))[0] == code
                with pytest.raises(Unreachable):
                    await wire.fetch(
                        wire.Peer(address, COORDINATOR_PORT, tls=unverified_client()), Request("GET", "/healthz")
                    )
        finally:
            process.terminate()
            said = process.communicate(timeout=20)[0].decode()
            print(said)
    assert process.returncode == 0, said
    assert token not in said and made not in said and "PRIVATE" not in said
    assert "without a certificate" in said


async def test_the_agent_learns_what_it_needs_and_cannot_write_the_fence(installed):
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "spec": {"podCIDRs": ["10.9.1.0/24"]}}
    pod = {"metadata": {"name": "p", "namespace": SHOP}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
    async with open_api(kubeconfig=str(installed.kubeconfig)) as admin:
        await admin.create(NODES, node)
        await admin.create(PODS, {"apiVersion": "v1", "kind": "Pod", **pod})
    async with as_account(installed, roles.AGENT) as api:
        ground = LinuxGround(api, "n1", "192.0.2.1")
        following = asyncio.create_task(ground.follow())
        async with asyncio.timeout(20):
            while not (ground.fences() and ground.kernel.pod_networks):
                await asyncio.sleep(0.1)
        following.cancel()
        assert ground.kernel.pod_networks == ("10.9.1.0/24",)
        assert set(ground.fences().values()) == {"main"}
        await api.get(LEASES, LEASE_NAME, SYSTEM_NAMESPACE)
        await api.patch(PODS, "p", Patch({"metadata": {"annotations": {"tidegate.dev/drain-result": "{}"}}}), SHOP)
        slice_ = fence.fence_slice(fence.first_epoch("main"))
        for work in (
            api.replace(ENDPOINTSLICES, slice_),
            api.create(ENDPOINTSLICES, slice_),
            api.delete(PODS, "p", SHOP),
            api.get(LEASES, "another", SYSTEM_NAMESPACE),
        ):
            with pytest.raises(ApiError) as refused:
                await work
            assert refused.value.code == 403
    run(installed, "delete", "node", "n1")


def test_pods_of_every_template_are_admitted_and_the_agents_nowhere_but_here(installed):
    """The operator's would be let in where Pod Security is strictest."""
    run(installed, "create", "namespace", "strict")
    run(installed, "label", "namespace", "strict", "pod-security.kubernetes.io/enforce=baseline")
    run(installed, "create", "namespace", "strictest")
    run(installed, "label", "namespace", "strictest", "pod-security.kubernetes.io/enforce=restricted")
    admitted = []
    for piece in pieces(Installation("tidegate:1")):
        one = piece.manifest
        if one["kind"] not in ("DaemonSet", "Deployment"):
            continue
        spec = {**one["spec"]["template"]["spec"], "serviceAccountName": "default"}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": one["metadata"]["name"]}, "spec": spec}
        create = ("create", "--dry-run=server", "--validate=strict", "-f", "-")
        admitted.append(run(installed, *create, "-n", SYSTEM_NAMESPACE, text=json.dumps(pod)))
        if pod["metadata"]["name"] == OPERATOR:
            run(installed, *create, "-n", "strictest", text=json.dumps(pod))
        else:
            run(installed, *create, "-n", "strict", text=json.dumps(pod), code=1)
    assert len(admitted) == 4


def test_a_gate_is_put_in_by_the_printed_patch_and_takes_a_sleep_away(installed):
    hook = {"preStop": {"exec": {"command": ["sleep", "5"]}}}
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "app", "image": "x", "lifecycle": hook}, {"name": "side", "image": "x"}]},
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "web"}}, "template": template},
    }
    run(installed, "create", "-n", SHOP, "-f", "-", text=json.dumps(deployment))
    patch = tidegate(installed, "install", "--print", "--gate", "deploy/web", "-n", SHOP)
    run(installed, "-n", SHOP, "patch", "deploy", "web", "--patch-file", "/dev/stdin", text=patch)
    spec = json.loads(run(installed, "get", "deploy", "web", "-n", SHOP, "-o", "json"))["spec"]["template"]["spec"]
    calls = [one["lifecycle"]["preStop"] for one in spec["containers"]]
    assert [list(one) for one in calls] == [["httpGet"], ["httpGet"]]
    assert [one["httpGet"]["path"] for one in calls] == ["/gate/app", "/gate/side"]
    assert spec["terminationGracePeriodSeconds"] == 60
    assert tidegate(installed, "install", "--print", "--gate", "deploy/web", "-n", SHOP) == "", "once is enough"


def test_the_printed_way_back_leaves_nothing(installed):
    script = tidegate(installed, "install", "--print", "--uninstall")
    told = run(installed, "-s", text=script, program="sh")
    assert f"{SHOP} Deployment/web /gate/app /gate/side" in told, "who still has a gate is listed"
    kinds = "namespaces,clusterroles,clusterrolebindings"
    left = run(installed, "get", kinds, "-o", "name").split()
    made = {f"clusterrolebinding.{roles.GROUP}/{name}-{role}" for name in ("ann", *WHO) for role in roles.CLUSTER_WIDE}
    made |= {one for one in left if "/ann-" in one}
    assert not [one for one in left if "tidegate" in one and one not in made]
