"""What the kinds of observers share in reading their own options: strict decoding, and templates."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import Epoch
from tidegate.observers.external import Spec

Shape = TypeVar("Shape")
TEMPLATE_WORDS = ("endpoint", "address", "port", "protocol", "epoch")


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


def filled(template: str, endpoint: Endpoint, epoch: Epoch | None) -> str:
    """``template`` with its words put in. Other braces are left alone: a body may be JSON."""
    words = {
        "endpoint": spelled(endpoint),
        "address": endpoint.address,
        "port": str(endpoint.port),
        "protocol": endpoint.protocol,
        "epoch": "" if epoch is None else str(epoch.number),
    }
    for word in TEMPLATE_WORDS:
        template = template.replace(f"{{{word}}}", words[word])
    return template
