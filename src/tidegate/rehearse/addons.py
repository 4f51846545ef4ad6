"""What a lab is given of Tidegate itself: node agents, the coordinator, the fence."""

from __future__ import annotations

from tidegate.lab.config import Addon

TIDEGATE = Addon("tidegate")
