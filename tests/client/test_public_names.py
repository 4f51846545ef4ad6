"""The public names of ``tidegate.client``: each is there, and costs nobody who does not use it."""

import subprocess
import sys

import pytest

from tidegate import client


@pytest.mark.parametrize("name", client.__all__)
def test_every_public_name_is_there(name):
    assert getattr(client, name).__module__.startswith("tidegate.client.")


def test_a_name_that_is_none_of_them_is_an_attribute_error():
    with pytest.raises(AttributeError, match="drain_everything"):
        client.drain_everything  # noqa: B018


def test_a_verb_is_imported_when_it_is_used():
    code = "import sys, tidegate.client; sys.exit(any(one.startswith('tidegate.client.') for one in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
