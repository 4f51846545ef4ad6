"""`tidegate release ...` typed into a virtual lab: what is printed, on both streams, and the exit code."""

from __future__ import annotations

import asyncio
import json
import re
import shlex

import click
from stage import NS

from tidegate.cli import release as command
from tidegate.cli.main import _explain
from tidegate.cli.target import asking
from tidegate.client import identity
from tidegate.client.options import Identity
from tidegate.kube.kubeconfig import Cluster

CLUSTER = Cluster("http://127.16.0.1:6443", "lab", NS)
ANN, BOB = Identity("ann@desk", "one", lambda other: None), Identity("bob@sofa", "two", lambda other: None)


class _Typed(Exception):
    """What a command line is about to do."""


class Terminal:
    """A person's terminal. ``monkeypatch`` gives the process its name, and its ledger a place."""

    def __init__(self, capsys, monkeypatch, folder):
        self.capsys, self.who, self.cluster = capsys, ANN, CLUSTER
        self.document = None
        """Of the last command with ``-o json``."""
        monkeypatch.setenv("TIDEGATE_LEDGER", str(folder / "ledger.jsonl"))
        monkeypatch.setattr(identity, "this_process", lambda: self.who)
        monkeypatch.setattr(command, "_act", self._typed)

    @staticmethod
    def _typed(workload, given, work):
        raise _Typed(given, work)

    async def run(self, line):
        """(exit code) of ``release LINE``; what it prints goes to capsys."""
        try:
            command.release.main(shlex.split(line), standalone_mode=False)
        except click.UsageError as error:
            click.echo(f"usage: {error.format_message()}", err=True)
            return 2
        except _Typed as typed:
            given, work = typed.args
        try:
            with asking(self.cluster, NS):
                document, code = await work(self.cluster, given["namespace"] or NS)
        except SystemExit as leaving:
            return leaving.code
        except click.UsageError as error:
            click.echo(f"usage: {error.format_message()}", err=True)
            return 2
        except Exception as error:
            text, code = _explain(error)
            click.echo(f"error: {text}", err=True)
            return code
        if given["output"] == "json":
            self.document = document
            click.echo(json.dumps(document, indent=2))
        return code

    async def type(self, line):
        """The whole transcript of one command."""
        self.capsys.readouterr()
        code = await self.run(line)
        said = self.capsys.readouterr()
        return f"$ tidegate release {line}\n{plain(said.err + said.out)}-> {code}\n\n"

    async def read(self, *lines):
        """Transcripts of several, one after the other."""
        return "".join([await self.type(line) for line in lines])


def plain(text):
    """Without what another lab, or another moment, would call otherwise."""
    text = re.sub(r"\becho((?:-r\d+)?)-[a-f0-9]{8,10}-[a-z0-9]{5}\b", r"echo\1-POD", text)
    text = re.sub(r"\becho((?:-r\d+)?)-[a-f0-9]{8,10}\b", r"echo\1-HASH", text)
    hashes = list(dict.fromkeys(re.findall(r"\b[a-f0-9]{9,10}\b", text)))
    for number, one in enumerate(hashes, start=1):
        text = text.replace(one, f"hash{number:0{len(one) - 4}}")
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "INSTANT", text)
    text = re.sub(r"^  \d\d:\d\d:\d\d  ", "  HH:MM:SS  ", text, flags=re.M)
    text = re.sub(r"^ *\d+\.\d s  ", "   T s  ", text, flags=re.M)
    text = re.sub(r"\bnode-\d\b", "NODE", text)
    return re.sub(r'("(?:seconds|epoch|at)": )[\d.]+', r"\1N", re.sub(r"after \d+\.\d s", "after T s", text))


async def interrupted(task):
    """Ctrl-C: asyncio cancels what runs."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
