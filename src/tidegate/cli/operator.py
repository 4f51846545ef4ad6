"""``tidegate operator``: keeps the Releases of a cluster, as its pods do."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys

import click

COLLECTING = (50_000, 10, 10)
"""One LIST of a hundred pods is 7,000 new objects, which are old before the default's tenth look at the young ones
(700 each): all go to the oldest generation, and that is gone through again, with every copy of the cluster in it. Of a
burst of 1,000 releases the collector took 24 s of 44; so it takes 6 of 25 (``python -m bench operator``)."""


@click.command()
@click.option("-n", "--namespace", default=None, help="Of its Lease.  [default: tidegate-system]")
@click.option("--metrics-port", type=click.IntRange(0, 65535), default=None, help="Of /metrics.  [default: 9090]")
@click.option(
    "--health-port", type=click.IntRange(0, 65535), default=None, help="Of /healthz and /readyz.  [default: 8081]"
)
def operator(namespace: str | None, metrics_port: int | None, health_port: int | None) -> None:
    """Carry out the Release objects of a cluster, as its pods do.

    It needs the kinds that tidegate install brings. Several may run side by side: one leads, by a Lease. Configured
    by TIDEGATE_* variables, as its pods show them; outside a cluster it takes the kubeconfig's current context. It
    logs JSON lines to standard error. See docs/operator.md.

    \b
    tidegate operator
    kubectl -n tidegate-system logs deploy/tidegate-operator
    """
    from tidegate.cli.main import FAILED, USAGE, fail
    from tidegate.operator.process import main
    from tidegate.vtime import Program

    env = {"TIDEGATE_POD": socket.gethostname(), **os.environ}
    given = {
        "TIDEGATE_NAMESPACE": namespace,
        "TIDEGATE_METRICS_PORT": metrics_port,
        "TIDEGATE_HEALTH_PORT": health_port,
    }
    env |= {name: str(value) for name, value in given.items() if value is not None}

    gc.set_threshold(*COLLECTING)
    try:
        code = asyncio.run(main(Program(env=env, log=lambda line: click.echo(line, err=True))))
    except ValueError as error:
        fail(f"this process is configured by TIDEGATE_* variables, and one is no number: {error}", USAGE)
    except OSError as error:
        fail(str(error), FAILED)
    sys.exit(code)
