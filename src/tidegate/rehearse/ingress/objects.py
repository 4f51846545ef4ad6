"""The objects of a lab's ingress: namespace, class, Service, Deployment, and where it needs one the fence's Ingress.

Each proxy is an ordinary pod of the lab that runs the real binary; what is ours is a second container, ``lab-feeder``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidegate.model.names import SYSTEM_NAMESPACE, fence_name
from tidegate.rehearse.ingress.compose import ADMIN_PORT, NODE_PORT, WEB_PORT, Kind
from tidegate.rehearse.ingress.settings import BOOTSTRAP, CONFIGURATION, envoy_bootstrap, haproxy_configuration

Manifest = dict[str, Any]
IMAGES: Mapping[str, str] = {"tidegate/lab-feeder": "tidegate.rehearse.ingress.feeder:main"}


def manifests(kind: Kind, server: str, state_folder: str, options: Mapping[str, str]) -> list[Manifest]:
    """Everything, in an order in which it can be created. ``options`` may set Traefik's ``throttle``."""
    meta = {"name": kind.workload, "namespace": kind.namespace}
    labels = {"app.kubernetes.io/name": kind.workload}
    web = {"name": "web", "port": WEB_PORT, "targetPort": WEB_PORT, "protocol": "TCP", "nodePort": NODE_PORT}
    service = {"type": "NodePort", "selector": labels, "ports": [web]}
    folder = f"{state_folder}/ingress-$(POD_NAME)"
    containers = [_proxy(kind, server, folder, options)]
    if kind.feeder:
        containers.append(_feeder(kind, server, folder))
    deployment = {
        "replicas": 1,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
    }
    made = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": kind.namespace}},
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "IngressClass",
            "metadata": {"name": kind.name},
            "spec": {"controller": kind.controller},
        },
        {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": service},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": deployment},
    ]
    return made if kind.feeder else [*made, _fence_ingress(kind)]


def _fence_ingress(kind: Kind) -> Manifest:
    """So that the fence travels with everything else that the controller routes."""
    name = fence_name("main")
    path = {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": name, "port": {"name": "fence"}}}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "tidegate-fence", "namespace": SYSTEM_NAMESPACE},
        "spec": {
            "ingressClassName": kind.name,
            "rules": [{"host": "tidegate-fence.invalid", "http": {"paths": [path]}}],
        },
    }


def _proxy(kind: Kind, server: str, folder: str, options: Mapping[str, str]) -> Manifest:
    program = kind.path()
    if program is None:
        raise FileNotFoundError(f"no {kind.program} on this machine: {kind.get}")
    env: dict[str, str] = {}
    match kind.name:
        case "traefik":
            # Where these are set it looks for a mounted token, which no pod of a lab has, or acts as its service
            # account, to which nothing is bound here.
            env = {"KUBERNETES_SERVICE_HOST": "", "KUBERNETES_SERVICE_PORT": "", "KUBECONFIG": ""}
            command = _traefik(program, server, options.get("throttle", ""))
        case "haproxy":
            env = {"FOLDER": folder, "CONFIGURATION": haproxy_configuration(WEB_PORT, ADMIN_PORT)}
            command = ["sh", "-c", f"mkdir -p $FOLDER && cd $FOLDER && : >>hosts.map && printf %s \"$CONFIGURATION\" "
                                   f">{CONFIGURATION} && exec {program} -db -f {CONFIGURATION}"]  # fmt: skip
        case _:
            env = {"FOLDER": folder, "BOOTSTRAP": envoy_bootstrap(folder, "$(POD_IP)", WEB_PORT, ADMIN_PORT)}
            command = ["sh", "-c", "mkdir -p $FOLDER && cd $FOLDER && printf %s \"$BOOTSTRAP\" >" + BOOTSTRAP +
                                   f" && until [ -e rds.json ]; do sleep 0.05; done && exec {program} -c {BOOTSTRAP}"
                                   " --use-dynamic-base-id --concurrency 1 --log-level warning"]  # fmt: skip
    return {
        "name": kind.name,
        "image": kind.image,
        "command": command,
        "env": [{"name": name, "value": value} for name, value in env.items()],
        "ports": [{"name": "web", "containerPort": WEB_PORT}, {"name": "admin", "containerPort": ADMIN_PORT}],
        "readinessProbe": {"tcpSocket": {"port": WEB_PORT}, "periodSeconds": 1},
    }


def _traefik(program: str, server: str, throttle: str) -> list[str]:
    return [
        program,
        "--api.insecure=true",
        f"--entrypoints.web.address=$(POD_IP):{WEB_PORT}",
        f"--entrypoints.traefik.address=$(POD_IP):{ADMIN_PORT}",
        f"--providers.kubernetesingress.endpoint={server}",
        "--providers.kubernetesingress.ingressclass=traefik",
        # It keeps idle connections to pods for 90 s, and a pod that has one is not quiet.
        "--serverstransport.maxidleconnsperhost=-1",
        "--global.checknewversion=false",
        "--global.sendanonymoususage=false",
        *([f"--providers.providersthrottleduration={throttle}"] if throttle else []),
    ]


def _feeder(kind: Kind, server: str, folder: str) -> Manifest:
    env = {"TIDEGATE_SERVER": server, "INGRESS": kind.name, "FOLDER": folder, "ADMIN_PORT": str(ADMIN_PORT)}
    return {
        "name": "lab-feeder",
        "image": "tidegate/lab-feeder:dev",
        "env": [{"name": name, "value": value} for name, value in env.items()],
    }
