"""``tidegate demo``: the same rolling update, guessed and verified, with the losses counted from real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tidegate.cli.lab import TIDEGATE_ADDON
from tidegate.cli.main import fail

if TYPE_CHECKING:
    from tidegate.lab.boot import RunningLab
    from tidegate.rehearse.settings import Settings
    from tidegate.rehearse.verdict import Rehearsal


@click.command(short_help="Six rolling updates under load: guessed, and verified.")
@click.option(
    "--report", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="Write the HTML report here."
)
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--rows", default="", help="Only these rows, comma-separated.  [default: all six]")
@click.option("--nodes", default=3, show_default=True, type=click.IntRange(1, 50), help="Nodes of the lab.")
@click.option(
    "--replicas", default=4, show_default=True, type=click.IntRange(1, 100), help="Replicas that are updated."
)
@click.option("--surge", default="25%", show_default=True, help="maxSurge of the Deployment.")
@click.option("--unavailable", default="25%", show_default=True, help="maxUnavailable of the Deployment.")
@click.option("--probe-period", default=1, show_default=True, type=click.IntRange(1), help="Readiness period, seconds.")
@click.option(
    "--rate", default=800.0, show_default=True, type=click.FloatRange(2, 20_000), help="Requests per second in all."
)
@click.option("--seed", default=0, show_default=True, help="Seeds the lab and the load.")
@click.option(
    "--network", type=click.Choice(["loopback", "kernel"]), default="loopback", show_default=True,
    help="The lab's: with kernel (root), requests are refused and time out as on real nodes.",
)  # fmt: skip
@click.option(
    "--proxy", type=click.Choice(["nft-1.36", "nft-1.30", "iptables-1.36"]), default="nft-1.36", show_default=True,
    help="As which kube-proxy the nodes' rules are laid out.",
)  # fmt: skip
def demo(**options: Any) -> None:
    """Six rolling updates under load in a lab cluster: plain, sleeps, and the verified drain gate.

    Boots a lab, sends 800 requests per second (half on new connections, half on kept ones), performs the same rolling
    update with each kind of preStop hook, then with one node's proxy lagging 8 s, and ends with one table.

    \b
    Exit codes: 0 Tidegate's rows lost nothing and every drain is verified
                1 requests were lost, or a run proves nothing
                4 a drain is not verified
    """
    from tidegate.lab import boot
    from tidegate.lab.settings import LabSettings

    settings = _settings(options)
    if options["report"] is not None:
        _check_writable(options["report"])
    lab_settings = LabSettings(
        name=f"demo-{os.getpid()}", nodes=options["nodes"], seed=options["seed"], block=0, addons=(TIDEGATE_ADDON,),
        network=options["network"], proxy=options["proxy"],
    )  # fmt: skip
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    lab = boot.start(lab_settings)
    try:
        rehearsal = _play_or_fail(lab, settings)
    finally:
        lab.close()
    sys.exit(_finish(rehearsal, options["report"], options["output"]))


def _settings(options: dict[str, Any]) -> Settings:
    from tidegate.rehearse.settings import ROWS, Settings

    wanted = [name for name in options["rows"].split(",") if name]
    unknown = [name for name in wanted if name not in {row.name for row in ROWS}]
    if unknown:
        raise click.BadParameter(
            f"no row {', '.join(unknown)}; rows: {', '.join(row.name for row in ROWS)}", param_hint="'--rows'"
        )
    full_rate = options["rate"] >= 800
    return Settings(
        rows=tuple(row for row in ROWS if not wanted or row.name in wanted),
        seed=options["seed"],
        replicas=options["replicas"],
        max_surge=_share(options["surge"]),
        max_unavailable=_share(options["unavailable"]),
        probe_seconds=options["probe_period"],
        new_per_second=options["rate"] / 2,
        pool_per_second=options["rate"] / 2,
        requests_min=10_000 if full_rate else 0,
    )


def _check_writable(report: Path) -> None:
    """Now, not after two minutes. Ends the command with one line."""
    try:
        report.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        fail(f"the report cannot be written to {report}: {report.parent} is not a directory")
    except OSError as error:
        fail(f"the report cannot be written to {report}: {(error.strerror or str(error)).lower()}")
    if not os.access(report.parent, os.W_OK):
        fail(f"the report cannot be written to {report}: permission denied")


def _share(text: str) -> str | int:
    """A count or a percentage, as Kubernetes takes them."""
    if text.isdigit():
        return int(text)
    if text.endswith("%") and text[:-1].isdigit():
        return text
    raise click.UsageError(f'"{text}" is neither a count nor a percentage')


def _play_or_fail(lab: RunningLab, settings: Settings) -> Rehearsal:
    """The rehearsal; one line and out when what it runs on was taken away."""
    from tidegate.kube.errors import Unreachable
    from tidegate.rehearse.stage import LoadFailed

    try:
        return _play(lab, settings)
    except LoadFailed as error:
        fail(str(error))
    except Unreachable:
        if not lab.has_ended:
            raise
        fail(f"the lab ended in the middle of the demo: {lab.last_words() or 'it was killed or taken down'}")


def _play(lab: RunningLab, settings: Settings) -> Rehearsal:
    from tidegate import vtime
    from tidegate.rehearse.live import progress
    from tidegate.rehearse.real import open_stage
    from tidegate.rehearse.story import rehearse

    async def play() -> Rehearsal:
        async with open_stage(lab.folder, lab.record) as stage:
            with progress(settings, sys.stderr) as tell:
                return await rehearse(stage, settings, tell)

    with asyncio.Runner(loop_factory=vtime.new_event_loop) as runner:
        return runner.run(play())


def _finish(rehearsal: Rehearsal, report: Path | None, output: str) -> int:
    from rich.console import Console

    from tidegate import vtime
    from tidegate.rehearse import report as html
    from tidegate.rehearse import table
    from tidegate.rehearse.verdict import as_json, judge

    verdict = judge(rehearsal)
    if output == "json":
        click.echo(json.dumps(as_json(rehearsal), indent=2))
    elif sys.stdout.isatty():
        Console().print(table.rich_table(rehearsal))
    else:
        click.echo(table.plain(rehearsal))
    if output == "table" and (words := table.comparison(rehearsal)):
        click.echo(words)
    for reason in verdict.reasons:
        click.echo(reason, err=True)
    if report is not None:
        try:
            report.write_text(html.render(rehearsal, verdict, vtime.now().isoformat(timespec="seconds")), "utf-8")
        except OSError as error:
            fail(f"the report could not be written: {error}")
        click.echo(f"report: {report}", err=True)
    return verdict.exit_code
