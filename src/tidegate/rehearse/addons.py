"""What a lab is given: of Tidegate itself node agents, their holders, the coordinator; and a proxy before its pods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tidegate.agent import addon
from tidegate.client.install import Offer
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
OPERATOR = Image("tidegate/operator", "tidegate.rehearse.operator_pod:main", (("tidegate", "operator"),))
OPERATOR_ENV = (("TIDEGATE_HOST", "$(POD_IP)"), ("TIDEGATE_TLS_DIR", "$(POD_FOLDER)/tls"))
"""Its pods share a machine: each has an address and a folder of its own where a real one has them to itself."""


def _offer(facts: LabFacts) -> list[dict[str, Any]]:
    offer = Offer(tuple(_manifests(facts)), f"{OPERATOR.repository}:{addon.TAG}", OPERATOR_ENV)
    return [offer.as_configmap()]


OFFER = Addon("offer", images=(*TIDEGATE.images, OPERATOR), manifests=_offer)
"""What ``tidegate install`` finds in a lab. Alone it makes a lab that has the images, and nothing that runs."""


EDGE = Addon(
    "ingress",
    images=tuple(Image(repository, entrypoint) for repository, entrypoint in ingress.IMAGES.items()),
    manifests=_ingress,
)
"""After ``TIDEGATE``: the fence's Ingress goes into its namespace."""
