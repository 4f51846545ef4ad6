"""What a lab is given of Tidegate itself: node agents, their holders, the coordinator."""

from __future__ import annotations

from typing import Any

from tidegate.agent import addon
from tidegate.lab.config import Addon, Image, LabFacts

OBSERVERS = "observers"
"""The option that names the file of observers (``observers.config``)."""


def _manifests(facts: LabFacts) -> list[dict[str, Any]]:
    config = facts.config
    nodes = tuple((name, config.addressing.node(index)) for index, name in enumerate(config.node_names, start=1))
    networks = {name: config.addressing.pod_network(index) for index, name in enumerate(config.node_names, start=1)}
    site = addon.Site(
        server=config.addressing.server,
        nodes=nodes,
        kernel_socket=facts.kernel_socket,
        sockets_folder=facts.sockets_folder,
        state_folder=facts.state_folder,
        kubelet_pid=facts.kubelet_pid,
        seed=config.seed,
        pod_networks={} if facts.kernel_socket else networks,
        observers=dict(config.addon_options).get(OBSERVERS, ""),
    )
    return addon.manifests(site)


TIDEGATE = Addon(
    "tidegate",
    images=tuple(Image(repository, entrypoint) for repository, entrypoint in addon.IMAGES.items()),
    manifests=_manifests,
)
