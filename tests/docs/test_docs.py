"""The docs tell the truth where a machine can tell."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from tools import draw_docs

from tidegate.cli import main
from tidegate.cli.main import tidegate
from tidegate.model.names import Ending

ROOT = Path(__file__).parents[2]
COMMAND_LINE = re.compile(r"(?:^|[`/(\s])tidegate ((?:[a-z]+)(?: [a-z|]+)*)((?: +\[?--[a-z-]+)*)")
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    targets = re.findall(r"\]\(([^)#:]+?)\)", page.read_text("utf-8"))
    assert not [target for target in targets if not (page.parent / target).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_option_shown_exists(page):
    missing = []
    for line in page.read_text("utf-8").splitlines():
        for words in COMMAND_LINE.findall(line.split("#")[0]):
            missing += _missing(words[0].split(), words[1].replace("[", " ").split())
    assert not missing


def _missing(words: list[str], options: list[str]) -> list[str]:
    context = click.Context(tidegate)
    first = tidegate.get_command(context, words[0])
    if first is None:
        return []  # prose, not a command line
    commands = [first]
    if isinstance(first, click.Group) and len(words) > 1:
        names = words[1].split("|")
        found = {name: first.get_command(context, name) for name in names}
        if any(command is None for command in found.values()):
            return [f"tidegate {words[0]} {name}" for name, command in found.items() if command is None]
        commands = [command for command in found.values() if command is not None]
    known = {name for command in commands for parameter in command.params for name in parameter.opts}
    return [f"tidegate {' '.join(words)} {option}" for option in options if option not in known]


def test_the_drawings_are_those_of_the_code():
    page = draw_docs.PROTOCOL.read_text("utf-8")
    assert draw_docs.redraw(page) == page


def test_the_exit_codes_are_those_of_the_code():
    page = (ROOT / "docs" / "operating.md").read_text("utf-8")
    told = {int(code): words for code, words in re.findall(r"^\| (\d+) \| (.+?) \|$", page, re.MULTILINE)}
    codes = (main.DONE, main.FAILED, main.USAGE, main.REFUSED, main.UNVERIFIED, main.INTERRUPTED)
    assert sorted(told) == sorted(codes)
    assert "`verified`" in told[main.UNVERIFIED] and "refused" in told[main.REFUSED] and "usage" in told[main.USAGE]


@pytest.mark.parametrize("name", ["concepts.md", "protocol.md"])
def test_the_results_are_those_of_the_code(name):
    page = (ROOT / "docs" / name).read_text("utf-8")
    table = page.split("| result | means |\n", 1)[1].split("\n\n", 1)[0]
    assert sorted(re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE)) == sorted(one.value for one in Ending)


def test_every_command_is_listed():
    page = (ROOT / "docs" / "operating.md").read_text("utf-8")
    listed = re.findall(r"^    tidegate (\w+)", page.split("## Commands")[1].split("\n## ")[0], re.MULTILINE)
    assert sorted(set(listed)) == sorted(tidegate.list_commands(click.Context(tidegate)))


def test_the_list_of_commands_cuts_no_sentence_short():
    for group in (tidegate, tidegate.get_command(click.Context(tidegate), "lab")):
        listing = group.get_help(click.Context(group, terminal_width=80)).split("Commands:")[1]
        assert "..." not in listing


def test_every_decision_is_numbered_once():
    numbers = [page.name[:4] for page in sorted((ROOT / "docs" / "decisions").glob("*.md"))]
    assert numbers == [f"{number:04}" for number in range(1, len(numbers) + 1)]
