"""``--observers``: what is wrong in the file is said before anything boots, in one line, and the exit code is 2."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from tidegate.cli.main import tidegate

WRONG = "observers:\n- {name: edge, kind: traefik, wher: {}}\n"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("lab", "up"), "observers.yaml: Object contains unknown field `wher` - at `$.observers[0]`"),
        (("lab", "up", "--bare"), "--bare has no coordinator"),
        (("agent", "node"), "--observers is for the coordinator"),
        (("agent", "coordinator"), "observers.yaml: Object contains unknown field `wher` - at `$.observers[0]`"),
    ],
)
def test_what_is_wrong_is_said_first(tmp_path, monkeypatch, command, says):
    monkeypatch.setenv("TIDEGATE_STATE", str(tmp_path))
    file = tmp_path / "observers.yaml"
    file.write_text(WRONG)
    done = CliRunner().invoke(tidegate, [*command, "--observers", str(file)])
    assert done.exit_code == 2
    assert says in done.stderr
    assert not (tmp_path / "labs").exists()
