"""``tidegate uninstall``: everything that ``install`` made is taken away; the same as ``install --remove``."""

from __future__ import annotations

from typing import Any

import click

from tidegate.cli.target import Duration, cluster_options


@click.command(short_help="Take an installation away, without opening a gate.")
@click.option("--image", default="", help="Sweeps the nodes.  [the one that is installed]")
@click.option("--force", is_flag=True, help="Go on although workloads have gates: their pods are told to stop at once.")
@click.option("--timeout", default="10m", type=Duration(), help="For held gates, agents and nodes.  [default: 10m]")
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@cluster_options
def uninstall(**given: Any) -> None:
    """Take webhook, operator, agents, holders, coordinator, fence, roles, kinds and namespace away, and the one table
    in each node's kernel. Releases go, what they released stays.

    Refused while a pod is held by a verb or a workload's template has a gate: without a holder its pods would be told
    to stop at once. Gates that are held now are waited for first. What stays on your own objects is listed.

    \b
    tidegate uninstall --dry-run
    tidegate uninstall

    \b
    Exit codes: 0 gone          3 refused, nothing was changed
                1 something is left, or failed: run it again
    """
    from tidegate.agent.manifests import Installation
    from tidegate.cli import applying

    applying.uninstall(Installation(given["image"] or "unknown"), given)
