"""Every benchmark can be asked for by its name, and every name that a page gives is one."""

from __future__ import annotations

import re
from pathlib import Path

from bench.__main__ import GROUPS, NAMES

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def test_whatever_measures_has_a_name():
    modules = sorted((ROOT / "bench").glob("*.py"))
    measuring = {path.stem for path in modules if re.search(r"^def run\(", path.read_text("utf-8"), re.MULTILINE)}
    assert sorted(NAMES) == sorted(measuring)


def test_every_benchmark_that_a_page_names_is_there():
    named = {name for page in PAGES for name in re.findall(r"-m bench ([a-z_]+)", page.read_text("utf-8"))}
    assert named and named <= {*NAMES, *GROUPS}
