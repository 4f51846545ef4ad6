"""Webhooks under TLS, on this machine's loopback: whom the API server believes, and what it says when it does not."""

from __future__ import annotations

import asyncio
import base64
import ssl

import pytest
from tests.realcluster.certificates import Pair, authority, signed

from tidegate.kube import wire

from .api_world import POD, SERVICE, World, pod
from .hook_world import SLICES, VALIDATING, Hooks, hook, validating

pytestmark = pytest.mark.realtime


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """An authority, and a certificate of it for the Service hooks in default and for this machine."""
    ca = authority(tmp_path_factory.mktemp("tls"), "ca")
    return ca, signed(ca, "hooks", "/CN=hooks", "subjectAltName=DNS:hooks.default.svc,IP:127.0.0.1\n")


def under_tls(tell, pair: Pair):
    """Run ``tell(world, hooks, port)`` with a webhook server that shows ``pair``."""

    async def told() -> None:
        world, hooks = World(), Hooks()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        server = await wire.serve(hooks.exchange, "127.0.0.1", 0, tls=context)
        try:
            await tell(world, hooks, server.port)
        finally:
            await server.close()

    asyncio.run(told())


def bundle(ca: Pair) -> str:
    return base64.b64encode(ca.certificate.read_bytes()).decode()


async def point(world: World, name: str, port: int) -> None:
    """A Service whose endpoint is the server."""
    await world.create(SERVICE, {"metadata": {"name": name}, "spec": {"ports": [{"port": 443, "targetPort": port}]}})
    made = {
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"port": port}],
        "endpoints": [{"addresses": ["127.0.0.1"]}],
    }
    await world.create(SLICES, made)


def test_a_service_is_believed_by_its_name_and_a_url_by_its_host(ours):
    ca, pair = ours

    async def tell(world, hooks, port):
        await point(world, "hooks", port)
        service = {"name": "hooks", "namespace": "default", "path": "/service"}
        await validating(world, hook(clientConfig={"service": service, "caBundle": bundle(ca)}))
        url = f"https://127.0.0.1:{port}/url"
        await validating(world, hook(clientConfig={"url": url, "caBundle": bundle(ca)}), name="w")
        await world.create(POD, pod("p"))
        assert sorted(hooks.paths) == ["/service", "/url"]

    under_tls(tell, pair)


def test_nobody_is_believed_without_their_authority_or_under_another_name(ours):
    ca, pair = ours

    async def tell(world, hooks, port):
        await point(world, "other", port)
        service = {"name": "other", "namespace": "default"}
        words = {
            "": "tls: failed to verify certificate: x509: certificate signed by unknown authority",
            bundle(ca): "tls: failed to verify certificate: x509: certificate is not valid for other.default.svc",
        }
        for known, why in words.items():
            await validating(world, hook(clientConfig={"service": service, "caBundle": known}))
            answer = await world.ask("POST", POD, pod("p"))
            assert answer.status == 500
            assert answer.message.endswith(f'Post "https://other.default.svc:443/?timeout=10s": {why}')
            await world.delete(f"{VALIDATING}/v")
        assert hooks.asked == []

    under_tls(tell, pair)
