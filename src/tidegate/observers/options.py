"""What the kinds of observers share in reading their own options: strict decoding, and templates."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import Epoch
from tidegate.observers.addition import Joining
from tidegate.observers.external import Replica, Services, Spec

Shape = TypeVar("Shape")
TEMPLATE_WORDS = ("endpoint", "address", "port", "protocol", "epoch", "question")


def decode_options(spec: Spec, shape: type[Shape]) -> Shape:
    """The options as ``shape``. Raises ``ValueError`` that names the path in the file."""
    try:
        return msgspec.convert(spec.options, shape)
    except msgspec.ValidationError as error:
        raise ValueError(
            str(error).replace("`$", f"`{spec.path}") if "`$" in str(error) else f"{error} - at `{spec.path}`"
        ) from error


def host_of(endpoint: Endpoint) -> str:
    return f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address


def spelled(endpoint: Endpoint) -> str:
    """``ip:port``; port 0 stands for every port of the address."""
    return f"{host_of(endpoint)}:{endpoint.port}"


def filled(template: str, endpoint: Endpoint, epoch: Epoch | None, kind: str = "unrouted") -> str:
    """``template`` with its words put in. Other braces are left alone: a body may be JSON."""
    words = {
        "endpoint": spelled(endpoint),
        "address": endpoint.address,
        "port": str(endpoint.port),
        "protocol": endpoint.protocol,
        "epoch": "" if epoch is None else str(epoch.number),
        "question": kind,
    }
    for word in TEMPLATE_WORDS:
        template = template.replace(f"{{{word}}}", words[word])
    return template


def of_services(names: tuple[str, ...], path: str) -> frozenset[str]:
    """``additionsOf``: the Services (namespace/name) whose added pods it can be asked about. Raises ``ValueError``."""
    if wrong := [name for name in names if name.count("/") != 1]:
        raise ValueError(f"{path}.additionsOf: {wrong[0]!r} is not namespace/name")
    return frozenset(names)


class Asking:
    """What the kinds share that are asked about added pods by a question of their own, where an option names their
    Service: of another Service they know nothing."""

    additions = "asked"
    _additions_of: frozenset[str] = frozenset()

    def expected(
        self, replica: Replica, service: str, services: Services, pods: tuple[Joining, ...]
    ) -> tuple[Joining, ...] | None:
        del replica, services
        return pods if service in self._additions_of else None
