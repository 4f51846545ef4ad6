"""A revision that a release remembers, and of which nothing stands any more: what it was."""

from __future__ import annotations

import msgspec

from tidegate.client.release.book import Entry
from tidegate.kube.api import JsonObject
from tidegate.release import template as templates


def template_of(entry: Entry, revision: str, base: JsonObject | None) -> JsonObject:
    """As it was asked for; or ``base``, the template of now, with its images. Raises ``ValueError``."""
    found = next((one for one in reversed(entry.status.history) if one.revision == revision), None)
    if found is not None and found.template is not None:
        return found.template
    if found is not None and found.images and base is not None:
        asked = msgspec.structs.replace(entry.spec, template=None, images=dict(found.images), restart="")
        return templates.wanted(asked, base)
    raise ValueError(f"$.spec.rollbackTo: there is no revision {revision}")
