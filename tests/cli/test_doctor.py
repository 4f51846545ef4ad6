"""The command doctor: what it looks at, and what it says to do."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner
from stage import NS, deployment, first, play

from tidegate import __version__, vtime
from tidegate.cli import doctor as command
from tidegate.cli.main import tidegate
from tidegate.client import doctor_checks as checks
from tidegate.client.doctor import examine
from tidegate.kube.api import LEASES, PODS, SERVICES, Patch
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import Unreachable
from tidegate.kube.exchange import whole
from tidegate.kube.kubeconfig import Cluster
from tidegate.model.names import RESERVATIONS, TOMBSTONE, DrainRecord, encode_drain

CLUSTER = Cluster("http://127.16.0.1:6443", "lab", NS)


def play_doctor(capsys, prepare=None, output="table", **options):
    """(exit code, what it printed) in a virtual lab."""

    async def story(stage):
        if prepare is not None:
            await prepare(stage)
        return await command._examine(CLUSTER, NS, output)

    code = play(story, **options)
    return code, capsys.readouterr().out


def scrubbed(text):
    """Ages and drawn names are another run's."""
    text = re.sub(r"\b\d+ s ago", "N s ago", text)
    return re.sub(r"\becho-[a-z0-9]{8,10}-[a-z0-9]{5}\b", "echo-HASH", text)


def test_a_lab_as_it_comes_up_is_well(capsys, golden):
    code, told = play_doctor(capsys)
    assert code == 0
    golden("cli/doctor-well.txt", scrubbed(told))


def test_what_is_wrong_is_named_with_its_next_step(capsys, golden):
    async def prepare(stage):
        name = await first(stage)
        record = DrainRecord(
            token="t", state="CUT", mode="label", verb="cut", labels={"app": "echo"}, changed={"app": "tidegate-cut"},
            holder="host/1", lease_until="2020-01-01T00:00:00Z",
        )  # fmt: skip
        change = {"labels": {"app": "mine", TOMBSTONE: "t"}, "annotations": encode_drain(record)}
        await stage.api.patch(PODS, name, Patch({"metadata": change}), NS)
        await stage.api.patch(
            SERVICES, "echo", Patch({"metadata": {"annotations": {RESERVATIONS: json.dumps({"gone": "t"})}}}), NS
        )
        await stage.api.delete(PODS, "tidegate-agent-node-2", "tidegate-system")
        await vanished(stage, "tidegate-agent-node-2")

    code, told = play_doctor(capsys, prepare, manifest=deployment(gate=False))
    assert code == 1
    golden("cli/doctor-ill.txt", scrubbed(told))


async def vanished(stage, name):
    for _ in range(600):
        if name not in [pod["metadata"]["name"] for pod in (await stage.api.list(PODS)).items]:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(name)


def test_a_cluster_without_tidegate_is_told_what_it_gets(capsys):
    code, told = play_doctor(capsys, manifest=deployment(gate=False), addons=())
    assert code == 0
    assert "there is no Tidegate in this cluster: no node can be asked" in told
    assert "3 of 3 pods that serve have no gate" in told


def test_a_frozen_proxy_is_found_by_the_fence(capsys):
    async def prepare(stage):
        stage.fault("proxy-freeze", "node-3", 60)
        name = await first(stage)
        await stage.delete(name)
        await asyncio.sleep(12)

    code, told = play_doctor(capsys, prepare)
    assert code == 1
    assert re.search(r"fail +fence +node-3: it shows epoch main/\d+, the newest is main/\d+, written 1\d s ago", told)


class Judge:
    """An exchange that answers access reviews as it is told; everything else is the server's."""

    def __init__(self, exchange, verdict):
        self._exchange, self._verdict = exchange, verdict

    async def __call__(self, request):
        if not request.path.endswith("/selfsubjectaccessreviews"):
            return await self._exchange(request)
        asked = json.loads(request.body)["spec"]["resourceAttributes"]
        allowed = self._verdict(asked["verb"], asked["resource"])
        return whole(201, json.dumps({"status": {} if allowed is None else {"allowed": allowed}}).encode())


def permissions(verdict):
    async def story(stage):
        found = await examine(KubeClient(Judge(stage.lab.lab.exchange, verdict), "lab"), NS)
        return found.level, {one.subject: one for one in found.findings if one.check == "permissions"}

    return play(story)


def test_who_may_only_look_is_warned_and_told_which_permission_is_missing():
    level, found = permissions(lambda verb, resource: verb in ("get", "list", "watch") or resource == "pods/proxy")
    assert level == "fail"  # pods/proxy of an agent is a create
    level, found = permissions(lambda verb, resource: verb in ("get", "list", "watch", "create"))
    assert level == "warn"
    assert found["status"].level == "ok"
    assert found["cut"].sentence == (
        "these credentials may not patch pods in namespace demo; patch services in namespace demo"
    )
    assert "delete pods in namespace demo" in found["drain"].sentence


def test_a_server_that_does_not_say_who_may_is_unknown_and_not_well():
    level, found = permissions(lambda verb, resource: None)
    assert level == "unknown"
    assert command._CODES[level] == 4
    assert {one.level for one in found.values()} == {"unknown"}


def test_a_server_that_cannot_be_reached_is_one_finding():
    async def down(request):
        raise Unreachable("nobody answers")

    found = vtime.run(examine(KubeClient(down, "https://there"), NS))
    assert [(one.check, one.level) for one in found.findings] == [("server", "fail")]
    assert command._CODES[found.level] == 1


NOW = datetime(2026, 11, 21, 12, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("minor", "level"), [("27", "fail"), ("28", "ok"), ("36+", "ok"), ("37", "warn"), ("", "unknown")]
)
def test_a_server_is_as_old_as_it_says(minor, level):
    assert checks.server({"gitVersion": f"v1.{minor}.0", "minor": minor}).level == level


@pytest.mark.parametrize(("said", "level"), [(__version__, "ok"), ("0.0.9", "warn"), ("", "warn"), (None, "unknown")])
def test_an_agent_of_another_version_is_a_warning_and_one_that_is_silent_unknown(said, level):
    assert checks.version("node-1", said, __version__).level == level


@pytest.mark.parametrize(
    ("spec", "level"),
    [
        ({"holderIdentity": "c", "renewTime": "2026-11-21T12:00:29.5Z", "leaseDurationSeconds": 5}, "ok"),
        ({"holderIdentity": "c", "renewTime": "2026-11-21T12:00:20Z", "leaseDurationSeconds": 5}, "fail"),
        ({"holderIdentity": "", "renewTime": "2026-11-21T12:00:29Z"}, "fail"),
        ({"holderIdentity": "c", "renewTime": "soon"}, "fail"),
    ],
)
def test_a_lease_that_is_not_renewed_is_nobodys(spec, level):
    assert checks.lease({"spec": spec}, NOW).level == level
    assert checks.lease(None, NOW).level == "warn"


def test_a_real_nodes_backends_are_its_proxy_mode():
    assert checks.proxy_mode("linux nftables, iptables-nft, generation 7") == "nftables, iptables-nft"
    assert checks.proxy_mode("linux no rules, generation 1") == "no rules"
    assert checks.proxy_mode("gateway/3 generation 1") == "unknown"


def test_findings_that_are_the_same_of_many_nodes_share_a_line():
    finding = {"check": "proxy", "level": "ok", "sentence": "proxy mode labkernel", "next": ""}
    document = {
        "context": "lab", "server": "s", "namespace": "",
        "findings": [{**finding, "subject": "node-1"}, {**finding, "subject": "node-2"}],
    }  # fmt: skip
    assert command.lines(document)[1:] == ["ok       proxy        node-1, node-2: proxy mode labkernel"]


def test_it_explains_itself():
    answer = CliRunner().invoke(tidegate, ["doctor", "--help"])
    assert answer.exit_code == 0
    assert "Exit code: 1 with a fail" in answer.output


def test_the_lease_doctor_reads_is_the_coordinators():
    async def story(stage):
        obj = await stage.api.get(LEASES, "tidegate-coordinator", "tidegate-system")
        return checks.lease(obj, vtime.now())

    assert play(story).level == "ok"


def slices(*conditions, service="tidegate-webhook"):
    metadata = {"name": "x", "labels": {"kubernetes.io/service-name": service}}
    endpoints = [{"addresses": [f"10.0.0.{index}"], "conditions": one} for index, one in enumerate(conditions)]
    return [{"metadata": metadata, "endpoints": endpoints or None}]


@pytest.mark.parametrize(
    ("found", "levels"),
    [
        ([], []),
        (slices({"ready": True}, service="other"), []),
        (slices(), ["fail"]),
        (slices({"ready": False}), ["fail"]),
        (slices({"ready": True}, {"ready": False}), ["ok"]),
        (slices({}), ["ok"]),
    ],
)
def test_a_webhook_that_is_installed_and_that_nobody_answers_is_a_failure(found, levels):
    assert [one.level for one in checks.webhook(found)] == levels
