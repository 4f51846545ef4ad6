"""A Service whose address the node kernel cannot listen on takes no connection: somebody is told, and told once."""

from __future__ import annotations

import asyncio
import errno
import os

from tidegate import vtime
from tidegate.kube.api import EVENTS, SERVICES
from tidegate.lab.config import LabConfig
from tidegate.lab.virtual import VirtualLab

CLUSTER_IP = "127.18.77.7"


async def no_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


def service(name: str, port: int, cluster_ip: str = "") -> dict[str, object]:
    spec = {"ports": [{"port": port}], "selector": {"app": name}}
    return {"metadata": {"name": name}, "spec": spec | ({"clusterIP": cluster_ip} if cluster_ip else {})}


def refuse_low_ports(monkeypatch) -> None:
    """As for a user who is not root."""
    bind = vtime.VirtualLoop.create_server

    async def create_server(self, factory, host=None, port=None, **options):
        if port and port < 1024:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return await bind(self, factory, host, port, **options)

    monkeypatch.setattr(vtime.VirtualLoop, "create_server", create_server)


async def told(api) -> list[tuple[str, str, str, str]]:
    events = (await api.list(EVENTS)).items
    return [
        (event["type"], event["reason"], event["involvedObject"]["name"], event["message"])
        for event in events
        if event["involvedObject"]["kind"] == "Service"
    ]


def test_a_service_on_a_taken_address_gets_one_warning_event_from_three_nodes():
    async def story():
        await asyncio.start_server(no_client, CLUSTER_IP, 8080)
        async with VirtualLab(LabConfig()) as lab:
            await lab.api.create(SERVICES, service("web", 8080, CLUSTER_IP), "default")
            await asyncio.sleep(5)
            await lab.api.create(SERVICES, service("other", 8080), "default")  # every proxy syncs again
            await asyncio.sleep(5)
            return await told(lab.api)

    assert vtime.run(story()) == [
        ("Warning", "CannotListen", "web", f"no connection is taken on {CLUSTER_IP}:8080: address already in use")
    ]


def test_a_port_below_1024_is_explained_to_who_is_not_root(monkeypatch):
    refuse_low_ports(monkeypatch)

    async def story():
        async with VirtualLab(LabConfig(nodes=1)) as lab:
            made = await lab.api.create(SERVICES, service("web", 80), "default")
            await asyncio.sleep(2)
            return made["spec"]["clusterIP"], await told(lab.api)

    address, found = vtime.run(story())
    assert found == [
        (
            "Warning",
            "CannotListen",
            "web",
            f"no connection is taken on {address}:80: permission denied; a lab that is not root's cannot use ports "
            "below net.ipv4.ip_unprivileged_port_start (1024): give the Service a higher port",
        )
    ]


def test_a_node_port_that_is_taken_is_named_with_its_node():
    async def story():
        await asyncio.start_server(no_client, "127.16.0.11", 30_080)
        async with VirtualLab(LabConfig(nodes=2)) as lab:
            wanted = service("web", 8080)
            wanted["spec"] |= {"type": "NodePort", "ports": [{"port": 8080, "nodePort": 30_080}]}
            await lab.api.create(SERVICES, wanted, "default")
            await asyncio.sleep(3)
            return await told(lab.api)

    assert [message for *_, message in vtime.run(story())] == [
        "no connection is taken on 127.16.0.11:30080: address already in use"
    ]


def test_nobody_is_told_of_a_service_without_pods(monkeypatch):
    """The fence is such a Service, on port 1: nobody dials it, and its user did not make it."""
    refuse_low_ports(monkeypatch)

    async def story():
        async with VirtualLab(LabConfig(nodes=1)) as lab:
            fence = service("fence", 1)
            del fence["spec"]["selector"]
            await lab.api.create(SERVICES, fence, "default")
            await asyncio.sleep(3)
            return await told(lab.api), lab.log_lines

    assert vtime.run(story()) == ([], [])


def test_the_lab_log_says_it_too():
    async def story():
        await asyncio.start_server(no_client, CLUSTER_IP, 8080)
        async with VirtualLab(LabConfig(nodes=2)) as lab:
            await lab.api.create(SERVICES, service("web", 8080, CLUSTER_IP), "default")
            await asyncio.sleep(5)
            return lab.log_lines

    assert vtime.run(story()) == [
        f"Service default/web: no connection is taken on {CLUSTER_IP}:8080: address already in use"
    ]
