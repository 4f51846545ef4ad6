"""The help of every command: examples that are command lines of its own, with options that it has."""

from __future__ import annotations

import re
import shlex

import click
import pytest

from tidegate.cli.main import tidegate

EXAMPLE = re.compile(r"(?:^|\| |\$\()tidegate ([^#|)>]+)")
NEEDS_NONE = {"agent", "completion", "doctor", "demo", "lab down", "lab status"}
"""Who is called by its name alone, or says so in other words."""


def commands(group=tidegate, prefix=""):
    context = click.Context(group)
    for name in group.list_commands(context):
        one = group.get_command(context, name)
        yield f"{prefix}{name}", one
        if isinstance(one, click.Group):
            yield from commands(one, f"{name} ")


COMMANDS = dict(commands())


def examples(command):
    lines = (line.strip() for line in (command.help or "").splitlines())
    return [shlex.split(words) for line in lines for words in EXAMPLE.findall(line)]


def addressed(words):
    """The command that ``words`` are for, and the words behind its name."""
    size = 2 if isinstance(COMMANDS[words[0]], click.Group) and len(words) > 1 else 1
    return COMMANDS[" ".join(words[:size])], words[size:]


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - NEEDS_NONE))
def test_there_is_an_example(name):
    assert examples(COMMANDS[name])


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_of_an_example_is_one(name):
    for words in examples(COMMANDS[name]):
        command, rest = addressed(words)
        known = {option for param in command.params for option in (*param.opts, *param.secondary_opts)}
        rest = rest[: rest.index("--")] if "--" in rest else rest
        assert not [
            word for word in rest if len(word) > 1 and word[0] == "-" and word.partition("=")[0] not in known
        ], words
