"""The webhook under TLS: every review is answered, and no call fails while its certificates are made anew."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import json
import ssl
from datetime import timedelta

import pytest
from tests.agent.fake_api import FakeApi
from tests.operator.test_injection import container, pod, review

from tidegate import vtime
from tidegate.agent.operator_objects import WEBHOOK_NAME, webhook
from tidegate.agent.roles import WEBHOOK_SECRET
from tidegate.kube import wire
from tidegate.kube.api import MUTATINGWEBHOOKCONFIGURATIONS as WEBHOOKS
from tidegate.kube.api import SECRETS
from tidegate.kube.certificates import is_of
from tidegate.kube.errors import Unreachable
from tidegate.kube.exchange import Request
from tidegate.lab.apiserver.schema import patches
from tidegate.model.names import SYSTEM_NAMESPACE, WEBHOOK
from tidegate.operator import webhook as module
from tidegate.operator.injection import REVIEW_BYTES_MAX
from tidegate.operator.serving import exchange as serving_exchange
from tidegate.operator.webhook import Webhook
from tidegate.operator.webhook_certificates import (
    AUTHORITY_RENEW,
    RETIRE,
    SETTLE,
    WebhookCertificates,
    renewed,
)
from tidegate.operator.webhook_settings import WebhookSettings

HOST = "127.0.0.1"
[CONFIGURATION] = [one.manifest for one in webhook() if one.manifest["kind"] == WEBHOOKS.kind]
POD = pod(container("app"))


class Cluster(FakeApi):
    """With the configuration as it is installed. ``bundles``: every one that API servers were told."""

    def __init__(self, is_configured=True):
        super().__init__()
        self.bundles = []
        if is_configured:
            self.objects[(WEBHOOKS.plural, "", WEBHOOK)] = json.loads(
                json.dumps({**CONFIGURATION, "metadata": {**CONFIGURATION["metadata"], "resourceVersion": "1"}})
            )

    async def patch(self, resource, name, patch, namespace=""):
        assert patch.style == "json" and (resource, name) == (WEBHOOKS, WEBHOOK)
        self.objects[(resource.plural, "", name)] = patches.json_patch(self._find(resource, name, ""), patch.body)
        self.bundles.append(self.bundle())
        return self._find(resource, name, "")

    def bundle(self):
        [told] = {one["clientConfig"].get("caBundle", "") for one in self._find(WEBHOOKS, WEBHOOK, "")["webhooks"]}
        return base64.b64decode(told)

    def secret(self, key):
        return base64.b64decode(self._find(SECRETS, WEBHOOK_SECRET, SYSTEM_NAMESPACE)["data"][key])


def trusting(bundle):
    """As an API server asks: with the bundle that it was told, for the Service's name."""
    context = ssl.create_default_context(cadata=bundle.decode())
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


async def ask(hook, context, path="/gate", body=None, method="POST"):
    body = json.dumps(review(POD)).encode() if body is None else body
    peer = wire.Peer(HOST, hook.port, "", 2.0, context, WEBHOOK_NAME)
    status, headers, told = await wire.fetch(peer, Request(method, path, (), {}, body))
    assert headers["connection"] == "close"
    return status, told


@contextlib.asynccontextmanager
async def serving(api, folder):
    lines = []
    hook = Webhook(api, WebhookSettings(str(folder), HOST, 0), lines.append)
    running = asyncio.create_task(hook.run())
    try:
        async with asyncio.timeout(5):
            while not hook.is_ready:
                assert not running.done(), running.exception()
                await asyncio.sleep(0.01)
        yield hook
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    assert not [line for line in lines if "PRIVATE" in line]


@pytest.mark.realtime
async def test_a_review_is_answered_to_who_trusts_the_bundle_and_to_nobody_else(tmp_path):
    api = Cluster()
    async with serving(api, tmp_path) as hook:
        status, told = await ask(hook, trusting(api.bundle()))
        assert status == 200 and json.loads(told)["response"]["patchType"] == "JSONPatch"
        other = (await _other_bundle(tmp_path / "other")).bundle()
        with pytest.raises(Unreachable):
            await ask(hook, trusting(other))
        with pytest.raises(Unreachable):  # plain HTTP
            await ask(hook, None)
    assert hook.outcomes == {"gated": 1} and not hook.is_ready


async def _other_bundle(folder):
    api = Cluster()
    await WebhookCertificates(api, str(folder), print).once(vtime.now())
    return api


@pytest.mark.realtime
async def test_garbage_other_paths_and_other_methods_never_make_it_fail(tmp_path):
    api = Cluster()
    async with serving(api, tmp_path) as hook:
        context = trusting(api.bundle())
        for body in (b"", b"garbage", b"[" * 10_000, json.dumps(review(POD)).encode()[:-5]):
            status, told = await ask(hook, context, body=body)
            assert status == 200 and json.loads(told)["response"]["allowed"] is True
        large = json.dumps(review(pod(container("app", env="x" * REVIEW_BYTES_MAX)))).encode()
        status, told = await ask(hook, context, body=large)
        response = json.loads(told)["response"]
        assert (status, response["uid"], response["allowed"]) == (200, "u-1", True)
        assert "larger" in response["warnings"][0]
        assert (await ask(hook, context, "/healthz", b"", "GET")) == (200, b"ok")
        assert (await ask(hook, context, "/gate", b"", "GET"))[0] == 405
        assert (await ask(hook, context, "/other"))[0] == 404
        with contextlib.suppress(Unreachable):  # what is larger than anything an API server sends is not read
            assert (await ask(hook, context, body=b"x" * (2 * REVIEW_BYTES_MAX + 1)))[0] == 400
        assert (await ask(hook, context))[0] == 200


@pytest.mark.realtime
async def test_two_hundred_reviews_at_once_are_all_answered(tmp_path):
    api = Cluster()
    async with serving(api, tmp_path) as hook:
        context = trusting(api.bundle())
        answers = await asyncio.gather(*(ask(hook, context) for _ in range(200)))
        assert {status for status, _ in answers} == {200} and hook.outcomes["gated"] == 200


async def test_which_sleeps_are_replaced_is_said_by_the_path():
    sleeping = json.dumps(review(pod(container("app", {"sleep": {"seconds": 5}})))).encode()
    hook = Webhook(FakeApi(), WebhookSettings("nowhere"), print)
    for path, outcome in (("/gate", "ungated"), ("/gate/replace-sleep", "gated")):
        await hook.exchange(Request("POST", path, body=sleeping))
        assert hook.outcomes[outcome] == 1


async def test_neither_api_servers_nor_prometheus_keep_a_connection_that_our_own_gate_would_wait_for():
    hook = Webhook(FakeApi(), WebhookSettings("nowhere"), print)
    reviewed = await hook.exchange(Request("POST", "/gate", body=json.dumps(review(POD)).encode()))
    scraped = await serving_exchange(lambda: "", lambda: "", lambda: b"")(Request("GET", "/metrics"))
    assert reviewed.headers["connection"] == scraped.headers["connection"] == "close"


# --- certificates ---

NOW = vtime.now().replace(microsecond=0)


def test_keys_that_last_are_kept_and_what_ends_is_made_anew_with_the_old_authority_beside_the_new():
    first = renewed(None, NOW, WEBHOOK_NAME)
    assert renewed(first, NOW + timedelta(days=59), WEBHOOK_NAME) is first
    second = renewed(first, NOW + timedelta(days=61), WEBHOOK_NAME)
    assert second.authority == first.authority and second.leaf != first.leaf and second.trusted == first.trusted
    late = first.authority.ends_at - AUTHORITY_RENEW + timedelta(hours=1)
    third = renewed(second, late, WEBHOOK_NAME)
    assert third.trusted == (third.authority.certificate, first.authority.certificate)
    assert is_of(third.authority, third.leaf, late)
    assert renewed(third, late + RETIRE - timedelta(hours=1), WEBHOOK_NAME) is third
    assert renewed(third, late + RETIRE, WEBHOOK_NAME).trusted == (third.authority.certificate,)
    over = first.authority.ends_at + timedelta(days=1)
    assert renewed(first, over, WEBHOOK_NAME).trusted != (first.authority.certificate,), "one that is over is not kept"
    assert len(renewed(first, over, WEBHOOK_NAME).trusted) == 1
    assert "PRIVATE" not in repr(third)


def keeping(api, folder, *instants):
    async def story():
        kept = WebhookCertificates(api, str(folder), print)
        seen = []
        for now in instants:
            await kept.once(now)
            path = folder / "tls.crt"
            seen.append(path.read_bytes() if path.exists() else b"")
        return seen

    return vtime.run(story())


def test_the_bundle_is_told_before_the_leaf_of_a_new_authority_is_served(tmp_path):
    api = Cluster()
    at = [NOW, NOW + SETTLE / 2, NOW + SETTLE, NOW + SETTLE + timedelta(seconds=1)]
    [first] = keeping(api, tmp_path, NOW)
    old = api.bundle()

    async def story():
        kept = WebhookCertificates(api, str(tmp_path), print)
        await kept.once(NOW)
        api.objects.pop((SECRETS.plural, SYSTEM_NAMESPACE, WEBHOOK_SECRET))
        seen = []
        for now in at:
            await kept.once(now)
            seen.append((tmp_path / "tls.crt").read_bytes())
        return seen

    seen = vtime.run(story())
    assert seen[:2] == [first, first] and seen[3] == api.secret("tls.crt") != first
    assert api.bundle() == api.secret("ca.crt") + old, "both are trusted"
    keeping(api, tmp_path, NOW + RETIRE + timedelta(seconds=1))
    assert api.bundle() == api.secret("ca.crt") and old not in api.bundle()


def test_a_replica_that_starts_amid_a_rotation_waits_until_its_leaf_is_known(tmp_path):
    api = Cluster()
    keeping(api, tmp_path / "one", NOW)
    api.objects.pop((SECRETS.plural, SYSTEM_NAMESPACE, WEBHOOK_SECRET))
    keeping(api, tmp_path / "one", NOW + timedelta(hours=1))
    seen = keeping(api, tmp_path / "two", *(NOW + timedelta(hours=1) + one for one in (SETTLE / 3, SETTLE)))
    assert seen == [b"", api.secret("tls.crt")]


def test_a_bundle_that_somebody_takes_out_is_put_back_and_another_field_is_never_written(tmp_path):
    api = Cluster()
    keeping(api, tmp_path, NOW)
    before = copy.deepcopy(api._find(WEBHOOKS, WEBHOOK, ""))
    for one in api.objects[(WEBHOOKS.plural, "", WEBHOOK)]["webhooks"]:
        one["clientConfig"].pop("caBundle")
    keeping(api, tmp_path, NOW + timedelta(seconds=15))
    assert api._find(WEBHOOKS, WEBHOOK, "") == before and len(api.bundles) == 2


@pytest.mark.parametrize("broken", ["ca.crt", "ca.key", "tls.crt", "trusted.crt"])
def test_a_secret_that_is_not_what_we_made_is_made_anew(tmp_path, broken):
    api = Cluster()
    keeping(api, tmp_path, NOW)
    held = api.objects[(SECRETS.plural, SYSTEM_NAMESPACE, WEBHOOK_SECRET)]["data"]
    held[broken] = base64.b64encode(b"nonsense").decode()
    keeping(api, tmp_path, NOW + timedelta(seconds=15), NOW + timedelta(seconds=15) + SETTLE)
    context = trusting(api.bundle())
    assert context.get_ca_certs() and api.secret("tls.crt") == (tmp_path / "tls.crt").read_bytes()


def test_without_a_configuration_there_is_a_certificate_and_nobody_to_tell(tmp_path):
    api = Cluster(is_configured=False)
    assert keeping(api, tmp_path, NOW) == [api.secret("tls.crt")] and api.bundles == []


def test_of_two_replicas_one_makes_it_and_both_serve_it(tmp_path):
    api = Cluster()

    async def story():
        kept = [WebhookCertificates(api, str(tmp_path / name), print) for name in "ab"]
        await asyncio.gather(*(one.once(NOW) for one in kept), return_exceptions=True)
        for one in kept:
            await one.once(NOW + timedelta(seconds=2))

    vtime.run(story())
    assert (tmp_path / "a" / "tls.crt").read_bytes() == (tmp_path / "b" / "tls.crt").read_bytes()
    assert api.secret("ca.crt") == api.bundle()


@pytest.mark.realtime
async def test_made_anew_under_load_no_call_fails(tmp_path, monkeypatch):
    """S62: authority and leaf, with callers that trust at each moment what the configuration says a while before."""
    monkeypatch.setattr(module, "REFRESH_SECONDS", 0.02)
    api = Cluster()
    async with serving(api, tmp_path) as hook:
        clock = {"now": NOW}
        kept = hook._certificates
        known, serials, failed, done = [api.bundle()], set(), [], asyncio.Event()

        async def call():
            while not done.is_set():
                try:
                    peer = wire.Peer(HOST, hook.port, "", 2.0, trusting(known[-1]), WEBHOOK_NAME)
                    reader, writer = await wire.connect(peer)
                    serials.add(writer.get_extra_info("ssl_object").getpeercert()["serialNumber"])
                    request = Request("POST", "/gate", (), {}, json.dumps(review(POD)).encode())
                    status, _, _ = await wire.converse(reader, writer, request, HOST)
                    assert status == 200
                    writer.close()
                except (OSError, Unreachable) as error:
                    failed.append(repr(error))

        callers = [asyncio.create_task(call()) for _ in range(4)]
        for step in range(2):
            api.objects.pop((SECRETS.plural, SYSTEM_NAMESPACE, WEBHOOK_SECRET))
            clock["now"] += timedelta(minutes=10)
            await kept.once(clock["now"])  # the Secret and the bundle
            await asyncio.sleep(0.1)  # realtime: an API server has not heard of it yet
            known.append(api.bundle())
            await kept.once(clock["now"] + SETTLE)  # the leaf
            await asyncio.sleep(0.3)  # realtime: calls go on
            assert len(serials) == step + 2, failed[:2]
        done.set()
        await asyncio.gather(*callers)
    assert not failed and sum(hook.outcomes.values()) > 50, (failed[:3], hook.outcomes)
