"""A user of this folder: a state folder of their own, the installed commands, and nothing left when they leave."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from e2e_world import User


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    """One test's user. Whatever they left running is taken down."""
    user = User(tmp_path / "state")
    yield user
    user.leave()


@pytest.fixture(scope="module")
def resident(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    """A user with the lab ``home`` up, for tests that only ask it things.

    Their machine is an odd one: no home, a relative state folder, a temporary folder too deep for UNIX sockets, and
    few files may be open.
    """
    here = tmp_path_factory.mktemp("resident")
    deep = here / ("deep" * 25)
    deep.mkdir()
    user = User(here / "state")
    user.files_max = 256
    user.environment |= {"TIDEGATE_STATE": "state", "TMPDIR": str(deep)}
    user.environment.pop("HOME", None)
    booted = user.run("lab", "up", "--detach", "--nodes", "2", "--lab", "home")
    if booted.code:
        user.leave()
    booted.expect(0)
    user.environment["KUBECONFIG"] = str(user.state / "labs" / "home" / "kubeconfig")
    yield user
    log = (user.state / "labs" / "home" / "lab.log").read_text()
    user.leave()
    assert log.splitlines() == ["kernel: ready"], log
