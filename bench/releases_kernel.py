"""Releases on real netfilter: the lines of ``releases`` once more, each node and pod in a network namespace of its own.

The same clients, commands and judges; rules are laid out as kube-proxy 1.36 lays them out. Wants root.
"""

from __future__ import annotations

import os

from bench import releases
from bench.figures import Figure


def run() -> list[Figure]:
    if os.geteuid():
        return [Figure("not run: making network namespaces is root's to do", 0, "")]
    return releases.on_lab("bench-releases-kernel", "--network", "kernel")
