"""The file that says which observers there are beside the nodes: YAML, strict, errors name the path.

An unknown field is an error: a policy that is misspelt must not read as its default.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from tidegate.dataplane.facts import Facts
from tidegate.kube.errors import Unreachable
from tidegate.model.endpointslice import EndpointSlice
from tidegate.observers.aws import AwsTargetGroups
from tidegate.observers.behavioural import Behavioural
from tidegate.observers.cilium import Cilium
from tidegate.observers.command_check import CommandCheck
from tidegate.observers.dns import DnsServers
from tidegate.observers.envoy import Envoy
from tidegate.observers.external import (
    ENTRY_POINTS,
    Fencing,
    Observer,
    Question,
    Replica,
    Spec,
    Where,
    host_and_port,
)
from tidegate.observers.gcp import GcpGroups
from tidegate.observers.haproxy import UNIX, HAProxy
from tidegate.observers.healthz import Healthz
from tidegate.observers.http_check import HttpCheck
from tidegate.observers.ingress_nginx import IngressNginx
from tidegate.observers.standing import Terms
from tidegate.observers.tcp_check import TcpCheck
from tidegate.observers.traefik import Traefik

Build = Callable[[Spec], Observer]
KINDS: Mapping[str, Build] = {
    "aws-target-group": AwsTargetGroups,
    "behavioural": Behavioural,
    "cilium": Cilium,
    "command": CommandCheck,
    "dns": DnsServers,
    "envoy": Envoy,
    "gcp-neg": GcpGroups,
    "haproxy": HAProxy,
    "healthz": Healthz,
    "http": HttpCheck,
    "ingress-nginx": IngressNginx,
    "tcp": TcpCheck,
    "traefik": Traefik,
}
WITHOUT_PLACE = frozenset({"command", "aws-target-group", "gcp-neg"})
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
TIMEOUT_SECONDS_MAX = 60.0
SETTLE_SECONDS_MAX = 3600.0


class ConfigError(ValueError):
    """The file cannot be used; the message names it, the path in it, and what is wrong."""


class WhereFields(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """``service`` (namespace/name) and ``port``, or ``addresses``."""

    service: str = ""
    port: int = 0
    addresses: tuple[str, ...] = ()


class ObserverSpec(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, rename="camel", kw_only=True
):
    """One observer as it is written; its name stands beside it where it is an object of the cluster."""

    kind: str
    where: WhereFields = WhereFields()
    policy: Literal["required", "advisory"] = "required"
    timeout_seconds: float = 2.0
    on_unreachable: Literal["hold", "warn"] = "hold"
    settle_seconds: float = 5.0
    options: dict[str, Any] = {}


class ObserverFields(ObserverSpec, frozen=True, kw_only=True):
    """One observer of the file."""

    name: str


class FileFields(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    observers: tuple[ObserverFields, ...]


@dataclass(frozen=True, slots=True)
class Configured:
    """One observer, ready to be asked."""

    name: str
    kind: str
    observer: Observer
    terms: Terms
    timeout_seconds: float
    service: str = ""
    """Whose slices list its replicas (namespace/name), empty for none."""


def load(path: Path) -> tuple[Configured, ...]:
    """The observers of a file. Raises ``ConfigError``."""
    try:
        return parse(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except (ConfigError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error


def parse(text: str) -> tuple[Configured, ...]:
    """The observers of a file's text. Raises ``ConfigError``."""
    try:
        fields = msgspec.convert(yaml.safe_load(text), FileFields)
    except yaml.YAMLError as error:
        raise ConfigError(f"not YAML: {' '.join(str(error).split())}") from error
    except msgspec.ValidationError as error:
        raise ConfigError(str(error)) from error
    names = [one.name for one in fields.observers]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"two observers are called {twice[0]!r}")
    return tuple(_configured(one, f"$.observers[{index}]") for index, one in enumerate(fields.observers))


def of_object(name: str, spec: Any) -> Configured:
    """The observer that an ``Observer`` object of that name stands for. Raises ``ConfigError``, with the path in it."""
    try:
        fields = msgspec.convert({"name": name, **(spec or {})}, ObserverFields)
    except msgspec.ValidationError as error:
        raise ConfigError(str(error).replace("`$.", "`$.spec.")) from error
    return _configured(fields, "$.spec")


class _NotUnderstood:
    """What cannot be asked, because nobody knows how: every drain waits for it, and says why."""

    fencing = Fencing.SINGLE
    covers: tuple[str, ...] = ()

    def __init__(self, why: str) -> None:
        self._why = why

    def replicas(self, slices: Iterable[EndpointSlice]) -> tuple[Replica, ...]:
        raise ValueError(self._why)

    async def ask(self, replica: Replica, question: Question) -> Facts:
        raise Unreachable(self._why)


def not_understood(name: str, why: str) -> Configured:
    """Stands for an object that is asked to be waited for and cannot be read: ignored, it would be taken for a yes."""
    return Configured(name, "", _NotUnderstood(why), Terms(Fencing.SINGLE, True, True, 0.0, ""), 1.0)


def _configured(fields: ObserverFields, path: str) -> Configured:
    if not _NAME.fullmatch(fields.name):
        raise ConfigError(f"{fields.name!r} is no name: lower case letters, digits and dashes - at `{path}.name`")
    if not 0 < fields.timeout_seconds <= TIMEOUT_SECONDS_MAX:
        raise ConfigError(f"more than 0 and at most {TIMEOUT_SECONDS_MAX:g} s - at `{path}.timeoutSeconds`")
    if not 0 <= fields.settle_seconds <= SETTLE_SECONDS_MAX:
        raise ConfigError(f"0 to {SETTLE_SECONDS_MAX:g} s - at `{path}.settleSeconds`")
    build = _kind(fields.kind, path)
    where = _where(fields, f"{path}.where")
    try:
        observer = build(Spec(fields.name, where, fields.options, f"{path}.options"))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    is_required, is_held = fields.policy == "required", fields.on_unreachable == "hold"
    unread = str(getattr(observer, "routes_unread", ""))
    lags = str(getattr(observer, "listing_lags", ""))
    terms = Terms(observer.fencing, is_required, is_held, fields.settle_seconds, unread, lags)
    return Configured(fields.name, fields.kind, observer, terms, fields.timeout_seconds, where.service)


def _where(fields: ObserverFields, path: str) -> Where:
    where = fields.where
    if where.addresses and (where.service or where.port):
        raise ConfigError(f"a service and its port, or addresses, not both - at `{path}`")
    is_needed = fields.kind in KINDS and fields.kind not in WITHOUT_PLACE
    if fields.kind in ("aws-target-group", "gcp-neg") and where != WhereFields():
        raise ConfigError(f"none: it finds what to ask about in the cluster's objects - at `{path}`")
    if not where.addresses and not where.service and (where.port or is_needed):
        raise ConfigError(f"where it is: a service and its port, or addresses - at `{path}`")
    if where.service and not re.fullmatch(r"[^/]+/[^/]+", where.service):
        raise ConfigError(f"{where.service!r} is not namespace/name - at `{path}.service`")
    if where.service and not 0 < where.port < 65536:
        raise ConfigError(f"its pods' port to ask at, 1 to 65535 - at `{path}.port`")
    for index, address in enumerate(where.addresses):
        try:
            if not address.startswith(UNIX) or fields.kind != "haproxy":
                host_and_port(address)
        except ValueError as error:
            raise ConfigError(f"{error} - at `{path}.addresses[{index}]`") from error
    return Where(where.service, where.port, where.addresses)


def _kind(name: str, path: str) -> Build:
    """The builder of a kind, ours or a third party's (entry point group ``tidegate.observers``)."""
    if name in KINDS:
        return KINDS[name]
    others = {point.name: point for point in metadata.entry_points(group=ENTRY_POINTS)}
    if name not in others:
        known = ", ".join(sorted({*KINDS, *others}))
        raise ConfigError(f"no kind {name!r}, there are {known} - at `{path}.kind`")
    try:
        loaded: Build = others[name].load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"kind {name!r} cannot be loaded: {error} - at `{path}.kind`") from error
    return loaded
