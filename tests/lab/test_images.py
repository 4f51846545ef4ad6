"""Which images a lab has, and which commands are an image's own."""

from __future__ import annotations

import pytest

from tidegate.lab.config import Addon, Image
from tidegate.lab.images import Images

IMAGES = Images([Addon("one", images=(Image("acme/tool", "acme.tool:main", (("tool", "serve"),)),))])


@pytest.mark.parametrize(
    ("image", "command", "entrypoint"),
    [
        ("acme/tool:7", (), "acme.tool:main"),
        ("docker.io/acme/tool@sha256:0", ["tool", "serve"], "acme.tool:main"),
        ("acme/tool:7", ["tool"], None),
        ("acme/tool:7", ["sh", "-c", "tool serve"], None),
        ("acme/other:7", (), None),
        ("acme/other:7", ["tool", "serve"], None),
        ("tidegate/echo:1", (), "tidegate.lab.echo:main"),
        ("tidegate/echo:1", ["tool", "serve"], None),
    ],
)
def test_an_image_runs_by_itself_and_by_a_command_of_its_own(image, command, entrypoint):
    assert IMAGES.entrypoint(image, command) == entrypoint


def test_an_image_that_is_not_there_is_answered_with_those_that_are():
    assert IMAGES.hint("acme/tol:7") == (
        "the lab pulls nothing and has no acme/tol: give the container a command to run on this machine, "
        "or use one of: acme/tool:TAG, tidegate/echo:TAG"
    )
