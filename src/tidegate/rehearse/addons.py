"""What a lab is given of Tidegate itself: node agents, the coordinator, the fence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tidegate.agent import addon
from tidegate.agent.addon import Site
from tidegate.lab.config import Addon, Image, LabFacts


def _manifests(facts: LabFacts) -> list[dict[str, Any]]:
    config = facts.config
    nodes = tuple((name, config.addressing.node(index)) for index, name in enumerate(config.node_names, start=1))
    site = Site(
        server=config.addressing.server,
        nodes=nodes,
        kernel_socket=facts.kernel_socket,
        # Beside the kernel's sockets: that folder's path is short (a UNIX socket's ends at 107 bytes).
        sockets_folder=str(Path(facts.kernel_socket).parent),
        state_folder=facts.state_folder,
        kubelet_pid=facts.kubelet_pid,
        seed=config.seed,
    )
    return addon.manifests(site)


TIDEGATE = Addon(
    "tidegate",
    tuple(Image(repository, entrypoint) for repository, entrypoint in addon.IMAGES.items()),
    _manifests,
)
