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
    """A user with the lab ``home`` of two nodes up, for tests that only ask it things."""
    user = User(tmp_path_factory.mktemp("resident") / "state")
    user.run("lab", "up", "--detach", "--nodes", "2", "--lab", "home").expect(0)
    user.environment["KUBECONFIG"] = str(user.state / "labs" / "home" / "kubeconfig")
    yield user
    user.leave()
