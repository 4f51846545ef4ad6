"""Which images the lab can run: the built-in echo, the add-ons' images, and nothing it would have to pull."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tidegate.lab.config import Addon, Image

ECHO = Image("tidegate/echo", "tidegate.lab.echo:main")
"""The demo workload: answers who it is; its version is the image's tag (design §7)."""


@dataclass(frozen=True, slots=True)
class Reference:
    """An image reference taken apart: ``registry/repository:tag``; the default registry is left out."""

    repository: str
    tag: str = "latest"


def parse(image: str) -> Reference:
    """Take a reference apart as distribution/reference does: a colon before a slash is the registry's."""
    name, _, _digest = image.partition("@")
    head, slash, tail = name.rpartition("/")
    last, _, tag = tail.partition(":")
    repository = f"{head}{slash}{last}"
    for prefix in ("docker.io/library/", "docker.io/"):
        repository = repository.removeprefix(prefix)
    return Reference(repository, tag or "latest")


class Images:
    """The images of one lab, by repository."""

    def __init__(self, addons: Iterable[Addon] = ()) -> None:
        self._images = {ECHO.repository: ECHO}
        for addon in addons:
            self._images |= {image.repository: image for image in addon.images}

    def entrypoint(self, image: str, command: Sequence[str] = ()) -> str | None:
        """The entry point ("module:function") of a reference; None for an image the lab does not have, and for a
        ``command`` that is not the image's own."""
        found = self._images.get(parse(image).repository)
        if found is None or (command and tuple(command) not in found.commands):
            return None
        return found.entrypoint

    def modules(self) -> tuple[str, ...]:
        """The modules of all entry points, to be loaded before the first container is forked."""
        return tuple(sorted({one.entrypoint.partition(":")[0] for one in self._images.values()}))

    def hint(self, image: str) -> str:
        """What to tell someone whose image the lab does not have."""
        known = ", ".join(f"{name}:TAG" for name in sorted(self._images))
        return (
            f"the lab pulls nothing and has no {parse(image).repository}: "
            f"give the container a command to run on this machine, or use one of: {known}"
        )
