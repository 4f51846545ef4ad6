"""Who gets through a TLS port on real sockets, and who does not."""

from __future__ import annotations

import asyncio
import ssl
from datetime import timedelta

import pytest

from tidegate import vtime
from tidegate.kube import certificates, wire
from tidegate.kube.errors import NoCertificate, Unreachable
from tidegate.kube.exchange import Request, Response, whole
from tidegate.kube.tls import Credentials, unverified_client

pytestmark = pytest.mark.realtime
HOST = "127.0.0.1"
PEERS = ("coordinator.tidegate",)


async def _app(request: Request) -> Response:
    return whole(200, f"{request.caller.name or 'nobody'} {request.caller.source}".encode())


def write(folder, authority, name, begun=None):
    folder.mkdir(exist_ok=True)
    leaf = certificates.make_leaf(authority, name, begun or vtime.now())
    (folder / "ca.crt").write_bytes(authority.certificate)
    (folder / "tls.crt").write_bytes(leaf.certificate)
    (folder / "tls.key").write_bytes(leaf.key)
    return Credentials(str(folder))


@pytest.fixture
def authority():
    return certificates.make_authority("main", vtime.now())


@pytest.fixture
def agent(tmp_path, authority):
    return write(tmp_path / "agent", authority, "agent.tidegate")


async def asked(server, context, name="agent.tidegate"):
    return await wire.fetch(wire.Peer(HOST, server.port, "", 3.0, context, name), Request("GET", "/"))


def mutual(agent, log=lambda line: None):
    terms = wire.Terms(tls=agent.server(is_mutual=True), peers=PEERS, log=log)
    return wire.serving(_app, HOST, 0, terms)


async def test_a_peer_with_its_certificate_is_known_by_its_name(tmp_path, authority, agent):
    coordinator = write(tmp_path / "coordinator", authority, "coordinator.tidegate")
    async with mutual(agent) as server:
        status, _, body = await asked(server, coordinator.client())
    assert (status, body) == (200, b"coordinator.tidegate 127.0.0.1")


@pytest.mark.parametrize("who", ["nobody", "another authority's", "an agent", "an expired", "TLS 1.2", "in the clear"])
async def test_who_has_no_certificate_that_may_ask_fails_the_handshake(tmp_path, authority, agent, who):
    lines = []
    context, said = None, ""
    if who == "nobody":
        context, said = unverified_client(), "without a certificate"
    elif who == "another authority's":
        other = write(tmp_path / "other", certificates.make_authority("main", vtime.now()), PEERS[0])
        context, said = other.client(), "not trusted"
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    elif who == "an agent":
        context, said = agent.client(), "may not ask here"
    elif who == "an expired":
        old = write(tmp_path / "old", authority, PEERS[0], vtime.now() - timedelta(days=100))
        context, said = old.client(), "not trusted"
    elif who == "TLS 1.2":
        context, said = unverified_client(), "without TLS 1.3"
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    else:
        said = "without TLS 1.3"
    async with mutual(agent, lines.append) as server:
        with pytest.raises(Unreachable):
            await asked(server, context)
    [line] = lines
    assert said in line and "turned away 1 connections" in line


async def test_a_server_of_another_name_or_authority_is_not_asked(tmp_path, authority, agent):
    coordinator = write(tmp_path / "coordinator", authority, "coordinator.tidegate")
    stranger = write(tmp_path / "stranger", certificates.make_authority("main", vtime.now()), "agent.tidegate")
    async with mutual(agent) as server:
        with pytest.raises(Unreachable, match="ostname"):
            await asked(server, coordinator.client(), "another.tidegate")
    async with mutual(stranger) as server:
        with pytest.raises(Unreachable, match="certificate"):
            await asked(server, coordinator.client())


async def test_a_new_certificate_is_taken_up_and_what_is_open_goes_on(tmp_path, authority, agent):
    coordinator = write(tmp_path / "coordinator", authority, "coordinator.tidegate").client()
    async with mutual(agent) as server:
        reader, writer = await wire.connect(wire.Peer(HOST, server.port, "", 3.0, coordinator, "agent.tidegate"))
        before = writer.get_extra_info("peercert")["serialNumber"]
        assert not agent.refresh()
        write(tmp_path / "agent", authority, "agent.tidegate")
        assert agent.refresh()
        _, second = await wire.connect(wire.Peer(HOST, server.port, "", 3.0, coordinator, "agent.tidegate"))
        assert second.get_extra_info("peercert")["serialNumber"] != before
        assert (await wire.converse(reader, writer, Request("GET", "/"), "agent"))[0] == 200
        (tmp_path / "agent" / "tls.crt").write_text("torn")
        with pytest.raises(NoCertificate, match="no certificate in"):
            agent.refresh()
        assert (await asked(server, coordinator))[0] == 200, "the one before stays"
        writer.close()
        second.close()


def test_no_key_is_shown(tmp_path, authority, agent):
    shown = repr(authority) + repr(agent) + repr(wire.Terms(tls=agent.server(is_mutual=False)))
    assert "PRIVATE" not in shown


async def test_of_two_that_share_a_port_one_may_leave(agent):
    terms = wire.Terms(is_shared=True)
    first = await wire.serve(_app, HOST, 0, terms)
    second = await wire.serve(_app, HOST, first.port, terms)
    first.stop_listening()
    await asyncio.sleep(0)
    for _ in range(20):
        assert (await wire.fetch(wire.Peer(HOST, first.port), Request("GET", "/")))[0] == 200
    await first.close()
    await second.close()
