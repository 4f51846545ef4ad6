"""An Envoy fed by files in a directory that it watches: each is replaced by a rename, the fence's last.

A member that ends is DRAINING for as long as its slice has it, as Envoy Gateway has it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tidegate.rehearse.ingress.settings import ENVOY_FENCE, envoy_assignment, envoy_cluster, envoy_routes
from tidegate.rehearse.ingress.sites import Member, Sites


class FedEnvoy:
    """``Fed``, by the files of ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._written: dict[str, str] = {}

    async def apply(self, sites: Sites) -> None:
        """Raises ``OSError`` until the folder is there, which the proxy's own container makes."""
        members = {name: sites.members[name] for name in dict.fromkeys(sites.backends.values())}
        for name, ones in members.items():
            self._endpoints(name, ones)
        if _file(ENVOY_FENCE) not in self._written:
            self._endpoints(ENVOY_FENCE, ())  # a cluster whose file is missing would hold up all others
        clusters = [envoy_cluster(name, str(self._folder), _file(name)) for name in (*members, ENVOY_FENCE)]
        self._write("cds.json", clusters)
        self._write("rds.json", [envoy_routes(dict(sites.backends))])
        self._endpoints(ENVOY_FENCE, sites.fence)

    def _endpoints(self, name: str, members: Iterable[Member]) -> None:
        hosts = [(one.address, one.port, "DRAINING" if one.is_ending else "HEALTHY") for one in members]
        self._write(_file(name), [envoy_assignment(name, list(dict.fromkeys(hosts)))])

    def _write(self, file: str, resources: list[dict[str, Any]]) -> None:
        text = json.dumps({"resources": resources})
        if self._written.get(file) == text:
            return
        draft = self._folder / f".{file}"
        draft.write_text(text)
        draft.rename(self._folder / file)
        self._written[file] = text


def _file(cluster: str) -> str:
    return f"eds-{re.sub('[^A-Za-z0-9-]', '_', cluster)}.json"
