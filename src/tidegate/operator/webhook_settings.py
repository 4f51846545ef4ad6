"""Where the webhook listens. Apart from ``webhook.py``, which needs ``cryptography``: a lab's operator does without."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tidegate.agent.operator_objects import WEBHOOK_NAME, WEBHOOK_PORT


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """Where it listens, the folder (of memory) that its certificate is written to, and the name in that. ``host`` ""
    is every address."""

    folder: str
    host: str = ""
    port: int = WEBHOOK_PORT
    name: str = WEBHOOK_NAME

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> WebhookSettings | None:
        """None without TIDEGATE_TLS_DIR: an operator outside a cluster serves no webhook. TIDEGATE_WEBHOOK_PORT is the
        port. Raises ``ValueError`` for a port that is no number."""
        if not (folder := env.get("TIDEGATE_TLS_DIR", "")):
            return None
        return cls(folder, env.get("TIDEGATE_HOST", ""), int(env.get("TIDEGATE_WEBHOOK_PORT", WEBHOOK_PORT)))
