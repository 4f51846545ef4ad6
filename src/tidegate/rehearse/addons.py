"""What a lab is given: of Tidegate itself node agents, their holders, the coordinator; and a proxy before its pods."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tidegate.agent import addon
from tidegate.client.install import OFFER, OFFER_KEY, OFFER_NAMESPACE
from tidegate.lab.config import Addon, Image, LabFacts
from tidegate.rehearse import ingress

OBSERVERS = "observers"
"""The option that names the file of observers (``observers.config``)."""
INGRESS, THROTTLE = "ingress", "throttle"
"""The options that name the proxy before the pods (``ingress.KINDS``), and its throttle where it has one."""


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
        observers=_observers(facts),
    )
    return addon.manifests(site)


def _observers(facts: LabFacts) -> str:
    """The coordinator's file: the user's, with the lab's ingress added where it has one; "" for none."""
    options = dict(facts.config.addon_options)
    given = options.get(OBSERVERS, "")
    if INGRESS not in options:
        return given
    text = Path(given).read_text("utf-8") if given else ""
    folder = Path(facts.state_folder)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "observers.yaml"
    file.write_text(ingress.composed(text, ingress.KINDS[options[INGRESS]]))
    return str(file)


def _ingress(facts: LabFacts) -> list[dict[str, Any]]:
    options = dict(facts.config.addon_options)
    kind = ingress.KINDS[options[INGRESS]]
    return ingress.manifests(kind, facts.config.addressing.server, facts.state_folder, options)


TIDEGATE = Addon(
    "tidegate",
    images=tuple(Image(repository, entrypoint) for repository, entrypoint in addon.IMAGES.items()),
    manifests=_manifests,
)


def _offer(facts: LabFacts) -> list[dict[str, Any]]:
    text = json.dumps(_manifests(facts))
    where = {"name": OFFER, "namespace": OFFER_NAMESPACE}
    return [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": where, "data": {OFFER_KEY: text}}]


BARE = Addon("bare", images=TIDEGATE.images, manifests=_offer)
"""A lab without Tidegate: it has the images, and ``tidegate install`` finds what it would have been given."""


EDGE = Addon(
    "ingress",
    images=tuple(Image(repository, entrypoint) for repository, entrypoint in ingress.IMAGES.items()),
    manifests=_ingress,
)
"""After ``TIDEGATE``: the fence's Ingress goes into its namespace."""
