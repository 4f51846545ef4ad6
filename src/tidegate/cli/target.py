"""Which cluster and which object a command is about: kubectl's options and ``KIND/NAME``."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from tidegate.cli.main import fail

if TYPE_CHECKING:
    from tidegate.kube.kubeconfig import Cluster
    from tidegate.kube.patience import Patience

KINDS = {
    "pod": ("pod", "pods", "po"),
    "svc": ("svc", "service", "services"),
    "deploy": ("deploy", "deployment", "deployments", "deployment.apps", "deployments.apps"),
    "rs": ("rs", "replicaset", "replicasets", "replicaset.apps", "replicasets.apps"),
    "sts": ("sts", "statefulset", "statefulsets", "statefulset.apps", "statefulsets.apps"),
    "ds": ("ds", "daemonset", "daemonsets", "daemonset.apps", "daemonsets.apps"),
    "job": ("job", "jobs", "job.batch", "jobs.batch"),
    "node": ("node", "nodes", "no"),
}
"""Kind -> the spellings kubectl takes for it (its short names, singular, plural, with the group)."""

_SPELLINGS = {spelling: kind for kind, spellings in KINDS.items() for spelling in spellings}
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


PATIENCE_SECONDS = 30.0
"""With an API server that cannot just now: longer than it takes etcd to elect, or a load balancer to find another."""
ENGINE_PAUSE_SECONDS = 0.25
"""A release has 8 s for a request, so it asks often: pauses that double leave five tries, and all five may be bad."""


def patience(timeout_seconds: float = PATIENCE_SECONDS) -> Patience:
    """Of a command, never beyond its own timeout; each time it waits a line on stderr says for what."""
    from tidegate.kube.patience import Patience

    return Patience(min(PATIENCE_SECONDS, timeout_seconds), lambda line: click.echo(f"          {line}", err=True))


def engine_patience() -> Patience:
    """Of a release, whose engine looks again by itself and has a lease to renew meanwhile."""
    from dataclasses import replace

    from tidegate.kube.patience import PATIENCE_SECONDS as SHORT

    return replace(patience(SHORT), pause_seconds_max=ENGINE_PAUSE_SECONDS)


class Reference(click.ParamType):  # type: ignore[type-arg] # generic only in newer clicks
    """``KIND/NAME`` -> (kind, name), the kind a key of ``KINDS``. ``kinds`` are the ones the command knows."""

    name = "KIND/NAME"

    def __init__(self, *kinds: str) -> None:
        self._kinds = kinds

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        kind, slash, name = str(value).partition("/")
        known = _SPELLINGS.get(kind.lower())
        if not slash or known not in self._kinds:
            self.fail(f"{value!r} is not {self._wanted}", param, ctx)
        if not _NAME.fullmatch(name):
            self.fail(f"{name!r} cannot be the name of an object", param, ctx)
        return known, name

    @property
    def _wanted(self) -> str:
        *others, last = [f"{one}/NAME" for one in self._kinds]
        return f"{', '.join(others)} or {last}" if others else last

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Kinds, and after the slash the names the cluster has."""
        from tidegate.cli.suggest import names

        del param
        kind, slash, name = incomplete.partition("/")
        if not slash:
            return [CompletionItem(f"{one}/") for one in self._kinds if one.startswith(kind)]
        known = _SPELLINGS.get(kind.lower())
        if known is None or known not in self._kinds:
            return []
        return [CompletionItem(f"{kind}/{one}") for one in names(known, ctx.params) if one.startswith(name)]


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
