"""Style is a test: size, names and borders of the house. Import contracts are in pyproject.toml."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "src").rglob("*.py"))
LINES_MAX = 600
FUNCTION_LINES_MAX = 70
FORBIDDEN_WORDS = re.compile(r"(Manager|Helper|Util|Utils|Handler|Info|Data)$")
FOREIGN_WORDS = {"MetaData"}


def _where(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _trees():
    for path in SOURCES:
        yield path, ast.parse(path.read_text("utf-8"))


def test_no_file_is_longer_than_600_lines():
    long = {_where(path): count for path in SOURCES if (count := len(path.read_text("utf-8").splitlines())) > LINES_MAX}
    assert not long


def _body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = node.body
    if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant) and len(body) > 1:
        body = body[1:]
    return (body[-1].end_lineno or 0) - body[0].lineno + 1


def test_no_function_is_longer_than_70_lines():
    long = [
        f"{_where(path)}:{node.lineno} {node.name}: {_body_lines(node)}"
        for path, tree in _trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _body_lines(node) > FUNCTION_LINES_MAX
    ]
    assert not long


def test_every_module_says_what_it_is_for():
    assert not [_where(path) for path, tree in _trees() if not ast.get_docstring(tree)]


def test_no_class_is_called_manager_or_the_like():
    named = [
        f"{_where(path)}:{node.lineno} {node.name}"
        for path, tree in _trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and FORBIDDEN_WORDS.search(node.name) and node.name not in FOREIGN_WORDS
    ]
    assert not named


def test_no_unfinished_marks():
    marks = re.compile(r"\b(FIXME|TODO|XXX)\b")
    assert not [_where(path) for path in SOURCES if marks.search(path.read_text("utf-8"))]


def _tracked() -> list[Path]:
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_tracked_file_names_a_machine_path():
    pattern = re.compile(rb"(?<![\w.])/(work|farm|tmp/bash_jobs)/\w")
    named = [
        _where(path)
        for path in _tracked()
        if path.suffix not in {".gz", ".png"} and path != Path(__file__) and pattern.search(path.read_bytes())
    ]
    assert not named


def test_no_tracked_file_is_large():
    assert not [_where(path) for path in _tracked() if path.stat().st_size > 400_000]


def test_tests_do_not_sleep_on_the_wall_clock():
    sleeping = []
    recorded_with_waits = ROOT / "tests" / "parity" / "run.py"  # replays stories against the wall clock, by design
    for path in sorted(set((ROOT / "tests").rglob("*.py")) - {recorded_with_waits}):
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if re.search(r"(?<!asyncio)\btime\.sleep\(", line) and "# realtime:" not in line:
                sleeping.append(f"{_where(path)}:{number}")
    assert not sleeping


def test_the_changelog_starts_with_an_unreleased_or_dated_entry():
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert re.search(r"^## (Unreleased|\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d)$", text, re.MULTILINE)
