"""Which cluster and which object a command is about: kubectl's options and ``KIND/NAME``."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from tidegate.cli.main import fail

if TYPE_CHECKING:
    from tidegate.kube.kubeconfig import Cluster

_KINDS = {
    "pod": "pod", "pods": "pod", "po": "pod",
    "svc": "svc", "service": "svc", "services": "svc",
}  # fmt: skip
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "ms": 0.001}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|)")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``-n``, ``--context``, ``--kubeconfig``, as kubectl has them."""
    for option in (
        click.option("-n", "--namespace", default="", help="Namespace.  [default: the context's]"),
        click.option("--context", default="", help="Context of the kubeconfig.  [default: the current one]"),
        click.option("--kubeconfig", default="", help="Kubeconfig file.  [default: $KUBECONFIG, ~/.kube/config]"),
    ):
        command = option(command)
    return command


@contextlib.contextmanager
def asking(cluster: Cluster, namespace: str) -> Iterator[None]:
    """One line and out where the cluster knows no such object: most often the namespace is another one."""
    from tidegate.kube.errors import ApiError

    try:
        yield
    except ApiError as error:
        if not error.is_not_found:
            raise
        fail(f"{error.message} in namespace {namespace} of {cluster.server}; choose with -n, --context or --kubeconfig")


class Reference(click.ParamType):  # type: ignore[type-arg] # generic only in newer clicks
    """``pod/NAME`` or ``svc/NAME`` -> (kind, name). ``kinds`` are the ones the command knows."""

    name = "KIND/NAME"

    def __init__(self, *kinds: str) -> None:
        self._kinds = kinds

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        kind, slash, name = str(value).partition("/")
        known = _KINDS.get(kind.lower())
        wanted = " or ".join(f"{one}/NAME" for one in self._kinds)
        if not slash or known not in self._kinds:
            self.fail(f"{value!r} is not {wanted}", param, ctx)
        if not _NAME.fullmatch(name):
            self.fail(f"{name!r} cannot be the name of an object", param, ctx)
        return known, name


class Duration(click.ParamType):  # type: ignore[type-arg]
    """``300``, ``90s``, ``5m``, ``1h`` -> seconds."""

    name = "DURATION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = _DURATION.fullmatch(str(value))
        if found is None:
            self.fail(f"{value!r} is no duration: write 90s, 5m or 1h", param, ctx)
        return float(found[1]) * _UNITS[found[2]]
