"""A container's environment and command line: field references, config and secret keys, ``$(VAR)`` expansion.

Source: Kubernetes v1.36.2 pkg/kubelet/kubelet_pods.go ``makeEnvironmentVariables`` and third_party/forked/golang/
expansion. An own variable wins over the lab's; a reference to an unknown variable stays as written.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tidegate.kube.api import CONFIGMAPS, SECRETS, Api
from tidegate.kube.errors import ApiError
from tidegate.lab.kubelet.credentials import Credentials

_REFERENCE = re.compile(r"\$(\$|\(([^)]*)\))")
_KEYED_FIELD = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")


class ConfigError(Exception):
    """A container refers to something that is not there: CreateContainerConfigError."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a pod runs: its address, its node's name and address."""

    pod_ip: str
    node_name: str
    host_ip: str


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace ``$(NAME)``; ``$$`` is a dollar sign; an unknown name stays as written."""

    def replacement(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        return variables.get(match[2], match[0])

    return _REFERENCE.sub(replacement, text)


def field(pod: Mapping[str, Any], path: str, place: Place) -> str:
    """The value of a ``fieldRef``. Raises ``ConfigError`` for a field that has none."""
    metadata, spec = pod["metadata"], pod["spec"]
    keyed = _KEYED_FIELD.fullmatch(path)
    if keyed:
        return str((metadata.get(keyed[1]) or {}).get(keyed[2], ""))
    known = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": place.node_name,
        "spec.serviceAccountName": spec.get("serviceAccountName", ""),
        "status.hostIP": place.host_ip,
        "status.hostIPs": place.host_ip,
        "status.podIP": place.pod_ip,
        "status.podIPs": place.pod_ip,
    }
    if path not in known:
        raise ConfigError(f"unsupported fieldPath: {path}")
    return str(known[path])


class Environment:
    """Builds environments over the API that config maps and secrets come from."""

    def __init__(self, api: Api, base: Mapping[str, str], credentials: Credentials | None = None) -> None:
        self._api = api
        self._base = base
        self._credentials = credentials

    async def build(self, pod: Mapping[str, Any], container: Mapping[str, Any], place: Place) -> dict[str, str]:
        """The complete environment. Raises ``ConfigError``."""
        metadata = pod["metadata"]
        env = {
            **self._base,
            "HOSTNAME": metadata["name"],
            "POD_NAME": metadata["name"],
            "POD_NAMESPACE": metadata["namespace"],
            "POD_IP": place.pod_ip,
            "NODE_NAME": place.node_name,
            "TIDEGATE_IMAGE": container.get("image", ""),
        }
        if self._credentials is not None:
            env |= await self._credentials.of(pod)
        for source in container.get("envFrom") or []:
            env |= await self._whole(metadata["namespace"], source)
        for variable in container.get("env") or []:
            value = await self._value(pod, variable, place, env)
            if value is not None:
                env[variable["name"]] = value
        return env

    def forget(self, uid: str) -> None:
        """A pod has ended, and will not be asked about again."""
        if self._credentials is not None:
            self._credentials.forget(uid)

    async def _value(
        self, pod: Mapping[str, Any], variable: Mapping[str, Any], place: Place, env: Mapping[str, str]
    ) -> str | None:
        source = variable.get("valueFrom")
        if not source:
            return expand(variable.get("value") or "", env)
        if "fieldRef" in source:
            return field(pod, source["fieldRef"]["fieldPath"], place)
        for kind in ("configMapKeyRef", "secretKeyRef"):
            if kind in source:
                return await self._key(pod["metadata"]["namespace"], kind, source[kind])
        return ""  # resourceFieldRef: the lab limits nothing

    async def _key(self, namespace: str, kind: str, ref: Mapping[str, Any]) -> str | None:
        content = await self._content(namespace, kind.removesuffix("KeyRef"), ref)
        key = ref["key"]
        if content is None or (key not in content and ref.get("optional")):
            return None
        if key not in content:
            raise ConfigError(f"couldn't find key {key} in {_noun(kind)} {namespace}/{ref['name']}")
        return content[key]

    async def _whole(self, namespace: str, source: Mapping[str, Any]) -> dict[str, str]:
        prefix = source.get("prefix") or ""
        for kind in ("configMap", "secret"):
            if f"{kind}Ref" in source:
                content = await self._content(namespace, kind, source[f"{kind}Ref"])
                return {prefix + key: value for key, value in (content or {}).items()}
        return {}

    async def _content(self, namespace: str, kind: str, ref: Mapping[str, Any]) -> dict[str, str] | None:
        resource = SECRETS if kind == "secret" else CONFIGMAPS
        try:
            obj = await self._api.get(resource, ref["name"], namespace)
        except ApiError as error:
            if error.is_not_found and ref.get("optional"):
                return None
            if error.is_not_found:
                raise ConfigError(f'{_noun(kind)} "{ref["name"]}" not found') from error
            raise
        content = obj.get("data") or {}
        if resource is SECRETS:
            return {key: base64.b64decode(value).decode(errors="replace") for key, value in content.items()}
        return dict(content)


def _noun(kind: str) -> str:
    return "secret" if kind.startswith("secret") else "configmap"


def command_line(container: Mapping[str, Any], env: Mapping[str, str]) -> tuple[str, ...]:
    """``command`` and ``args`` after expansion."""
    words = [*(container.get("command") or []), *(container.get("args") or [])]
    return tuple(expand(word, env) for word in words)
