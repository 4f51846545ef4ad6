"""The one question a verb asks on a terminal before it changes anything."""

from __future__ import annotations

import signal
import sys

import click


def is_wanted(is_sure: bool) -> bool:
    """Whether to go on: ``is_sure`` (--yes) asks nobody, nor does a pipe. Raises ``click.Abort`` on Ctrl-C.

    asyncio turns Ctrl-C into the cancellation of a task that here waits for the keyboard and would never hear of it
    (asyncio/runners.py ``_on_sigint``; the read goes on, PEP 475): so while it is asked the signal is Python's own.
    """
    if is_sure or not sys.stdin.isatty():
        return True
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return click.confirm("Do it?", err=True)
    except click.Abort:
        click.echo("nothing was changed", err=True)
        raise
    finally:
        signal.signal(signal.SIGINT, before)
