"""Defaults of pods and pod templates (kubernetes/pkg/apis/core/v1/defaults.go, Kubernetes 1.36).

Only defaulting: what admission adds to a Pod (service account, priority, tolerations) is not here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tidegate.lab.apiserver.schema.quantity import canonical

Json = dict[str, Any]

_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_FILE_MODE = 420  # 0644: DefaultMode of secret, configMap, downwardAPI and projected volumes


def pod(obj: Json) -> None:
    """A Pod: its spec, and what the server gives to pods but not to templates."""
    spec = obj.setdefault("spec", {})
    pod_spec(spec)
    spec.setdefault("enableServiceLinks", True)
    for condition in (obj.get("status") or {}).get("conditions") or ():
        condition.setdefault("lastProbeTime", None)  # Times without omitempty: always shown, as null
        condition.setdefault("lastTransitionTime", None)
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name) is False:
            del spec[name]
    for container in [*spec.get("initContainers", ()), *spec.get("containers", ())]:
        resources = container["resources"]
        if resources.get("limits"):
            resources["requests"] = {**resources["limits"], **resources.get("requests", {})}
        if spec.get("hostNetwork"):
            for port in container.get("ports", ()):
                if not port.get("hostPort"):
                    port["hostPort"] = port.get("containerPort")


def template(holder: Json, key: str = "template") -> None:
    """The pod template of a workload's spec."""
    found = holder.setdefault(key, {})
    found.setdefault("metadata", {})
    pod_spec(found.setdefault("spec", {}))


def pod_spec(spec: Json) -> None:
    """A PodSpec, in a Pod or in a template."""
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("securityContext", {})
    spec.setdefault("terminationGracePeriodSeconds", 30)
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:  # the deprecated twin is written by the conversion to v1, always
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    for container in _containers(spec):
        _container(container)
    for volume in spec.get("volumes") or ():
        _volume(volume)


def _containers(spec: Json) -> Iterator[Json]:
    for key in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(key) or ()


def _container(container: Json) -> None:
    image = str(container.get("image") or "")
    container.setdefault("imagePullPolicy", "Always" if _is_latest(image) else "IfNotPresent")
    container.setdefault("resources", {})
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    resource_requirements(container["resources"])
    for port in container.get("ports") or ():
        port.setdefault("protocol", "TCP")
    for name in _PROBES:
        if container.get(name) is not None:
            _probe(container[name])
    hooks = container.get("lifecycle") or {}
    for name in ("postStart", "preStop"):
        if hooks.get(name):
            _http_get(hooks[name])
    for variable in container.get("env") or ():
        source = variable.get("valueFrom") or {}
        if source.get("fieldRef"):
            source["fieldRef"].setdefault("apiVersion", "v1")
        if source.get("resourceFieldRef"):
            source["resourceFieldRef"].setdefault("divisor", "0")


def resource_requirements(resources: Json) -> None:
    """Quantities spelled as the server spells them."""
    for key in ("limits", "requests"):
        if resources.get(key):
            resources[key] = {name: canonical(value) for name, value in resources[key].items()}


def _is_latest(image: str) -> bool:
    """No tag, or the tag ``latest``; a digest pins (parsers.ParseImageName)."""
    if "@" in image:
        return False
    last = image.rsplit("/", 1)[-1]
    return ":" not in last or last.endswith(":latest")


def _probe(probe: Json) -> None:
    for key, value in (("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1)):
        if not probe.get(key):
            probe[key] = value
    if not probe.get("failureThreshold"):
        probe["failureThreshold"] = 3
    _http_get(probe)
    if isinstance(probe.get("grpc"), dict):
        probe["grpc"].setdefault("service", "")


def _http_get(action: Json) -> None:
    request = action.get("httpGet")
    if isinstance(request, dict):
        request["path"] = request.get("path") or "/"
        request["scheme"] = request.get("scheme") or "HTTP"


def _volume(volume: Json) -> None:
    if not any(key != "name" for key in volume):
        volume["emptyDir"] = {}
    for key in ("secret", "configMap", "downwardAPI", "projected"):
        if isinstance(volume.get(key), dict):
            volume[key].setdefault("defaultMode", _FILE_MODE)
    if isinstance(volume.get("hostPath"), dict):
        volume["hostPath"].setdefault("type", "")
    for item in (volume.get("downwardAPI") or {}).get("items") or ():
        item.get("fieldRef", {}).setdefault("apiVersion", "v1")
    for source in (volume.get("projected") or {}).get("sources") or ():
        if isinstance(source.get("serviceAccountToken"), dict):
            source["serviceAccountToken"].setdefault("expirationSeconds", 3600)
        for item in (source.get("downwardAPI") or {}).get("items") or ():
            item.get("fieldRef", {}).setdefault("apiVersion", "v1")
    claim = (volume.get("ephemeral") or {}).get("volumeClaimTemplate")
    if claim:
        claim.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")
