"""Lets the tests of agent, engine and commands share their fakes (importlib mode adds no folder to the path)."""

import contextlib
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from stage import Switch

from tidegate.agent import coordinator as coordinator_module
from tidegate.agent import process as agent_module
from tidegate.kube.client import KubeClient


@pytest.fixture
def switch(monkeypatch):
    """The API as agents and coordinator reach it, to be turned off."""
    switches = []

    def opened(module):
        original = module.open_api

        @contextlib.asynccontextmanager
        async def switched(server=""):
            async with original(server) as api:
                one = Switch(api._exchange)
                switches.append(one)
                yield KubeClient(one, server)

        monkeypatch.setattr(module, "open_api", switched)

    opened(agent_module)
    opened(coordinator_module)

    def turn(is_off):
        for one in switches:
            one.is_off = is_off

    return turn
