"""Passing webhooks: a write is tried, finds that somebody has to be asked, and is tried again with the answers.

A write of the lab is one step of the loop: nothing comes between its read and its commit. Asking takes time. So a write
that needs an answer it does not have raises ``Unasked`` before it has changed anything; ``admitted`` asks, then tries
again. An answer holds for the version of the object it was given for: a write that finds a newer one asks again, as the
real server's retries do. Without a configuration nobody holds an ``Admission``, and nothing is asked or tried twice.

Order and reinvocation follow apiserver pkg/admission/plugin/webhook/{mutating,validating}/dispatcher.go.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, TypeVar

from tidegate.kube.api import JsonObject
from tidegate.kube.errors import ApiError
from tidegate.lab.apiserver import failures
from tidegate.lab.apiserver.access import Subject
from tidegate.lab.apiserver.objects import clone, new_uid
from tidegate.lab.apiserver.registry import Registry, Row
from tidegate.lab.apiserver.schema import patches, strict
from tidegate.lab.apiserver.store import Store
from tidegate.lab.apiserver.versions import encode
from tidegate.lab.apiserver.webhooks import conditions
from tidegate.lab.apiserver.webhooks.calling import Caller
from tidegate.lab.apiserver.webhooks.matching import GROUP, Asked, Hook, matched_row
from tidegate.lab.apiserver.webhooks.review import (
    CallFailed,
    Verdict,
    denied,
    inapplicable,
    question,
    shown,
    verdict,
    version_of,
)

Settle = Callable[[JsonObject], None]
"""What the server's own admission does to a new object, in place; done again after a webhook has changed it."""

Done = TypeVar("Done")


class Webhooks:
    """A server's configurations and the way to those they name."""

    def __init__(self, store: Store, registry: Registry, rng: random.Random) -> None:
        self.registry = registry
        self.rng = rng
        self.caller = Caller(store, registry, rng)
        self._namespaces = store.collection(registry.named("", "namespaces"))
        self._mutating = store.collection(registry.named(GROUP, "mutatingwebhookconfigurations"))
        self._validating = store.collection(registry.named(GROUP, "validatingwebhookconfigurations"))

    @property
    def is_wanted(self) -> bool:
        """Whether there is any configuration."""
        return bool(self._mutating.namespaces or self._validating.namespaces)

    def hooks(self, *, is_mutating: bool) -> list[Hook]:
        """By configuration name, then as listed."""
        collection = self._mutating if is_mutating else self._validating
        return [
            Hook(version.object["metadata"]["name"], index, webhook)
            for version in collection.versions()
            for index, webhook in enumerate(version.object.get("webhooks") or [])
        ]

    def matched(self, hook: Hook, asked: Asked, user: Subject) -> Row | None:
        """As ``matched_row``, and by the matchConditions. Raises ``ApiError``: 404 for a namespace that is not there,
        403 for a condition that cannot be evaluated, unless such a failure is to be ignored."""
        labels = {}
        if (version := self._namespaces.get("", asked.namespace)) is not None:
            labels[asked.namespace] = version.object["metadata"].get("labels") or {}
        try:
            found = matched_row(hook, asked, self.registry, labels)
        except KeyError:
            raise failures.not_found(self.registry.named("", "namespaces"), asked.namespace) from None
        wanted = hook.webhook.get("matchConditions")
        if found is None or not wanted:
            return found
        request = question(hook, found, asked, "", user)["request"]
        objects = [shown(found, one, asked.subresource) for one in (asked.object, asked.old)]
        try:
            return found if conditions.hold(wanted, request, *objects) else None
        except conditions.Undecided as error:
            if hook.fails_open:
                return None
            raise failures.forbidden(asked.row, asked.name, str(error)) from error


class Unasked(Exception):
    """Somebody has to be asked first; nothing has been changed."""

    def __init__(self, admission: Admission, asked: Asked, settle: Settle | None, *, is_mutating: bool) -> None:
        super().__init__(asked.key)
        self._admission, self._asked, self._settle, self._is_mutating = admission, asked, settle, is_mutating

    async def ask(self) -> None:
        """Raises ``ApiError`` where somebody says no."""
        if self._is_mutating:
            await self._admission.mutate(self._asked, self._settle)
        else:
            await self._admission.validate(self._asked)


async def admitted(webhooks: Webhooks, user: Subject, write: Callable[[Admission | None], Done]) -> Done:
    """Do ``write``, asking who has to be asked. Raises what it raises, and ``ApiError`` where somebody says no."""
    if not webhooks.is_wanted:
        return write(None)
    return await Admission(webhooks, user).done(write)


class Admission:
    """One request's way past the webhooks: what was asked, and what was answered."""

    def __init__(self, webhooks: Webhooks, user: Subject) -> None:
        self._webhooks = webhooks
        self._user = user
        self._answers: dict[tuple[Any, ...], JsonObject | None] = {}
        self.drawn: dict[str, str] = {}
        """Generated names by what they were generated from: a second try is about the same object."""
        self.subresource = ""
        """Of the request, where the write itself knows of none."""
        self.warnings: list[str] = []

    async def done(self, write: Callable[[Admission | None], Done]) -> Done:
        """As ``admitted``."""
        while True:
            try:
                return write(self)
            except Unasked as unasked:
                await unasked.ask()

    # -- in the write, without awaiting

    def mutated(self, asked: Asked, settle: Settle | None = None) -> JsonObject | None:
        """The object as the mutating webhooks leave it, ours to change. Raises ``Unasked``."""
        found: JsonObject | None = clone(self._answered(asked, settle, is_mutating=True))
        return found

    def check(self, asked: Asked) -> None:
        """Return if the validating webhooks let the write pass. Raises ``Unasked``."""
        self._answered(asked, None, is_mutating=False)

    def _answered(self, asked: Asked, settle: Settle | None, *, is_mutating: bool) -> JsonObject | None:
        key = (is_mutating, *asked.key)
        if key in self._answers:
            return self._answers[key]
        hooks = [] if asked.is_exempt else self._webhooks.hooks(is_mutating=is_mutating)
        if any(self._webhooks.matched(hook, asked, self._user) is not None for hook in hooks):
            raise Unasked(self, asked.holding(clone(asked.object)), settle, is_mutating=is_mutating)
        return asked.object

    # -- between two tries

    async def mutate(self, asked: Asked, settle: Settle | None) -> None:
        """Ask the mutating webhooks in turn; where one changed the object, those before it that want to are asked once
        more. Raises ``ApiError``."""
        key = (True, *asked.key)
        hooks = self._webhooks.hooks(is_mutating=True)
        willing: list[Hook] = []
        again: list[Hook] = []
        has_changed = False
        for hook in hooks:
            asked, changed, was_asked = await self._mutate(hook, asked)
            if changed:
                has_changed = True
                again, willing = [*again, *willing], []
            if was_asked and hook.webhook.get("reinvocationPolicy") == "IfNeeded":
                willing.append(hook)
        if has_changed:
            before = clone(asked.object)
            if settle is not None and asked.object is not None:
                settle(asked.object)
            if asked.object != before:
                again = [*again, *willing]
            for hook in [hook for hook in hooks if hook in again]:
                asked, _, _ = await self._mutate(hook, asked)
        self._answers[key] = asked.object

    async def _mutate(self, hook: Hook, asked: Asked) -> tuple[Asked, bool, bool]:
        """The write after ``hook``, whether that changed it, and whether it was asked."""
        seen = self._webhooks.matched(hook, asked, self._user)
        if seen is None:
            return asked, False, False
        said = await self._ask(hook, seen, asked, is_mutating=True)
        if said is None or not said.patch:
            return asked, False, True
        if asked.object is None:
            why = f'admission webhook "{hook.name}" attempted to modify the object, which is not supported for this '
            raise failures.internal(f"{why}operation")
        changed = self._patched(seen, asked, said.patch)
        return asked.holding(changed), changed != asked.object, True

    def _patched(self, seen: Row, asked: Asked, patch: list[JsonObject]) -> JsonObject:
        target = shown(seen, asked.object, asked.subresource)
        found: Any = target
        for operation in patch:
            try:
                found = patches.json_patch(found, [operation])
            except patches.PatchError as error:
                raise failures.internal(inapplicable(found, operation) or error.detail) from error
        if not isinstance(found, dict):
            raise failures.internal("couldn't get version/kind; json parse error")
        kind = str(found.get("kind") or "")
        if asked.row.custom is None:
            if wrong := strict.mismatch(kind, found):
                raise failures.internal(wrong)
            strict.prune(kind, found)
        if seen.conversion is not None and target is not asked.object:
            found = seen.conversion.to_storage(found)
        if kind == asked.row.kind:
            asked.row.strategy.complete(asked.row.stored.kind, found)
        changed: JsonObject = found
        return changed

    async def validate(self, asked: Asked) -> None:
        """Ask the validating webhooks, all at once. Raises ``ApiError``: of the first that said no."""
        hooks = self._webhooks.hooks(is_mutating=False)
        matched = [(hook, self._webhooks.matched(hook, asked, self._user)) for hook in hooks]
        wanted = [(hook, seen) for hook, seen in matched if seen is not None]
        refusals: list[ApiError] = []

        async def ask(hook: Hook, seen: Row) -> None:
            try:
                await self._ask(hook, seen, asked, is_mutating=False)
            except ApiError as error:
                refusals.append(error)

        await asyncio.gather(*(ask(hook, seen) for hook, seen in wanted))
        if refusals:
            raise refusals[0]
        self._answers[(False, *asked.key)] = asked.object

    async def _ask(self, hook: Hook, seen: Row, asked: Asked, *, is_mutating: bool) -> Verdict | None:
        """What ``hook`` says, if it allows; None where it could not be asked and that does not matter."""
        if asked.is_dry_run and hook.has_side_effects:
            raise failures.bad_request(f'admission webhook "{hook.name}" does not support dry run')
        uid = new_uid(self._webhooks.rng)
        try:
            body = encode(question(hook, seen, asked, uid, self._user))
            answer = await self._webhooks.caller.ask(hook.webhook["clientConfig"], body, hook.timeout_seconds)
            said = verdict(answer, uid, version_of(hook), is_mutating=is_mutating)
        except CallFailed as error:
            if hook.fails_open:
                return None
            raise failures.internal(f'failed calling webhook "{hook.name}": {error}') from error
        self.warnings.extend(said.warnings)
        if not said.is_allowed:
            raise denied(hook, said.result)
        return said
