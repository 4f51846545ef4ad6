"""Label mode with an agent and a coordinator behind a real API server: asked through pods/proxy, verified or named."""

from __future__ import annotations

import json
import re

import pytest
from tests.realcluster.fake_kubelet import NODE
from tests.realcluster.scene import scene
from tests.realcluster.stand_in import own_address, tidegate_installed

from tidegate.kube import wire
from tidegate.kube.api import ENDPOINTSLICES, PODS, SECRETS, SERVICEACCOUNTS, Patch, Selection
from tidegate.kube.errors import Unreachable
from tidegate.kube.exchange import Request, whole
from tidegate.kube.tls import unverified_client
from tidegate.model import pod as pods
from tidegate.model.activity import parse
from tidegate.model.names import AGENT_PORT, COORDINATOR_PORT, SYSTEM_NAMESPACE
from tidegate.observers.activity import ProxiedActivity
from tidegate.observers.asking import ACCOUNT, AGENT_ASK_PORT, AUDIENCE, TOKEN_HEADER
from tidegate.observers.witness import ABOUT_PATH

pytestmark = [
    pytest.mark.realcluster,
    pytest.mark.skipif(not own_address(), reason="played by test_witnessed_apart, in a network namespace of its own"),
]


async def test_a_drain_is_verified_through_the_api_servers_proxy(real_cluster):
    async with scene(real_cluster, "witnessed") as here, tidegate_installed(here.api, own_address()):
        name = (await here.names())[0]
        shown = await here.tidegate("status", "svc/web")
        assert shown.code == 0 and f"{NODE}  fence " in shown.out, shown.out
        assert "routes to 10.77." in shown.out and "cannot be asked" not in shown.out
        ran = await here.tidegate("drain", f"pod/{name}", "--yes", "-o", "json")
        assert ran.code == 0, ran.err
        told = json.loads(ran.out)
        assert (told["result"], told["stragglers"]) == ("verified", [])
        slices = (await here.api.list(ENDPOINTSLICES, Selection(SYSTEM_NAMESPACE))).items
        assert sorted(one["addressType"] for one in slices) == ["IPv4", "IPv6"]
        # Nothing answers on the node's port 10256 that it is a kube-proxy of 1.33 or later, so one epoch is no proof
        # there: the drain's own was followed by a second, which is the last that was written.
        for one in slices:
            assert one["metadata"]["annotations"]["tidegate.dev/epoch"].endswith(f"/{told['epoch'] + 1}")
        assert name not in await here.names()


async def test_a_node_that_does_not_sync_is_named_and_the_pod_stays(real_cluster):
    async with scene(real_cluster, "witnessed-frozen") as here, tidegate_installed(here.api, own_address()) as kernel:
        name = (await here.names())[0]
        kernel.is_frozen = True
        ran = await here.tidegate("drain", f"pod/{name}", "--yes", "--no-replace", "--timeout", "1500ms")
        assert ran.code == 4 and "timed-out" in ran.out and NODE in ran.out, ran.out
        shown = await here.tidegate("status", f"pod/{name}")
        assert "drain: overdue" in shown.out and "routes to" in shown.out, shown.out
        kernel.is_frozen = False
        again = await here.tidegate("drain", f"pod/{name}", "--yes", "--no-replace")
        assert again.code == 0 and "verified" in again.out, again.out + again.err


async def test_verify_proves_that_no_route_is_left_and_names_the_node_where_one_is(real_cluster):
    async with scene(real_cluster, "verified") as here, tidegate_installed(here.api, own_address()) as kernel:
        name = (await here.names())[0]
        routed = await here.tidegate("verify", f"pod/{name}", "--timeout", "10s")
        assert routed.code == 1 and "of verified/web lists" in routed.out, routed.out
        await here.api.patch(PODS, name, Patch({"metadata": {"labels": {"app": "web-offline"}}}), "verified")
        proven = await here.tidegate("verify", f"pod/{name}", "--timeout", "10s", "-o", "json")
        assert proven.code == 0, proven.out + proven.err
        assert [one["verdict"] for one in json.loads(proven.out)["nodes"]] == ["no-route"]
        kernel.is_frozen = True
        behind = await here.tidegate("verify", f"pod/{name}", "--timeout", "1500ms")
        assert behind.code == 4 and f"  {NODE}: pending" in behind.out, behind.out


@pytest.mark.parametrize(
    ("probe", "is_idle", "detail"),
    [
        ("http:18088/idle", True, "nothing to do"),
        ("http:18088/busy", False, "3 jobs"),
        ("http:18088/broken", None, "it answered 500"),
        ("http:18089/idle", None, "error trying to reach service"),
        ("metric:18088/metrics#jobs", False, "jobs is 2"),
        ("exec:true", None, "exec"),
    ],
)
async def test_a_pods_own_503_is_told_from_the_api_servers(real_cluster, probe, is_idle, detail):
    answers = {
        "/idle": (200, b"nothing to do"),
        "/busy": (503, b"3 jobs"),
        "/broken": (500, b""),
        "/metrics": (200, b"jobs 2"),
    }

    async def app(request):
        return whole(*answers[request.path], "text/plain")

    namespace = "asked-" + re.sub("[^a-z0-9]+", "-", probe.lower())
    async with scene(real_cluster, namespace, replicas=1) as here, wire.serving(app, own_address(), 18088):
        name = (await here.names())[0]
        at = {"podIP": own_address(), "podIPs": [{"ip": own_address()}]}
        await here.api.patch(PODS, name, Patch({"status": at}, subresource="status"), namespace)
        pod = pods.decode(await here.api.get(PODS, name, namespace))
        said = await ProxiedActivity(here.api, pod, parse(probe)).ask()
        assert said.is_idle is is_idle, said
        assert detail in said.detail, said


async def test_under_tls_command_lines_are_answered_by_their_token_and_nobody_else_is(real_cluster, tmp_path):
    at = own_address()
    async with scene(real_cluster, "under-tls") as here, tidegate_installed(here.api, at, str(tmp_path)):
        name = (await here.names())[0]
        shown = await here.tidegate("status", "svc/web")
        assert shown.code == 0 and f"{NODE}  fence " in shown.out and "cannot be asked" not in shown.out, shown
        ran = await here.tidegate("drain", f"pod/{name}", "--yes", "-o", "json")
        assert ran.code == 0 and json.loads(ran.out)["result"] == "verified", ran
        proxied = f"{PODS.path(SYSTEM_NAMESPACE, f'https:tidegate-agent-{NODE}:{AGENT_ASK_PORT}')}/proxy{ABOUT_PATH}"
        for account, audience, code in (
            (ACCOUNT, AUDIENCE, 200), (ACCOUNT, "", 401), ("default", AUDIENCE, 403), ("", "", 401)
        ):  # fmt: skip
            headers = {"authorization": "Bearer forged-as-pods-may"} if not account else {}
            if account:
                audiences = [audience] if audience else None
                asked = {"metadata": {"name": account}, "spec": {"audiences": audiences, "expirationSeconds": 600}}
                made = await here.api.create(SERVICEACCOUNTS, asked, SYSTEM_NAMESPACE, "token")
                headers = {TOKEN_HEADER: made["status"]["token"]}
            if account:
                assert (await here.api.exchange(Request("GET", proxied, (), headers))).status == code
            else:
                peer = wire.Peer(at, AGENT_ASK_PORT, tls=unverified_client())
                assert (await wire.fetch(peer, Request("GET", ABOUT_PATH, (), headers)))[0] == code
        for port in (AGENT_PORT, COORDINATOR_PORT):
            for tls in (unverified_client(), None):
                with pytest.raises(Unreachable):
                    await wire.fetch(wire.Peer(at, port, tls=tls), Request("GET", "/healthz"))
        secrets = [one["metadata"]["name"] for one in (await here.api.list(SECRETS, Selection(SYSTEM_NAMESPACE))).items]
        assert sorted(secrets) == ["tidegate-agent-tls", "tidegate-authority"]
