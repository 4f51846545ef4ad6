"""A dict-backed ``Api``: resourceVersions, conflicts, watches and faults, and nothing else of a cluster."""

from __future__ import annotations

import asyncio
import copy

from tidegate import vtime
from tidegate.kube.api import ALL, Deletion, Listing, WatchEvent
from tidegate.kube.errors import ApiError, Unreachable

READ_SECONDS = 0.0005


class FakeApi:
    """``down`` makes every call Unreachable; ``watch_lag`` delays watch events; ``writes`` logs what changed."""

    def __init__(self):
        self.objects = {}
        self.version = 100
        self.history = []
        self.changed = asyncio.Event()
        self.down = False
        self.watch_lag = 0.0
        self.lose_replies = 0
        self.writes = []
        self.calls = []

    # --- the protocol ---

    async def get(self, resource, name, namespace=""):
        await self._call("get", resource, name)
        return copy.deepcopy(self._find(resource, name, namespace))

    async def list(self, resource, select=ALL, resource_version=""):
        await self._call("list", resource, "")
        items = [
            copy.deepcopy(obj)
            for (plural, _, _), obj in sorted(self.objects.items())
            if plural == resource.plural and _selected(obj, select)
        ]
        return Listing(items, str(self.version))

    async def watch(self, resource, select=ALL, resource_version=""):
        seen = int(resource_version or self.version)
        position = next((n for n, event in enumerate(self.history) if event[0] > seen), len(self.history))
        while True:
            while position < len(self.history):
                _, plural, kind, obj, at = self.history[position]
                position += 1
                if plural != resource.plural or not _selected(obj, select):
                    continue
                wait = at + self.watch_lag - asyncio.get_running_loop().time()
                if wait > 0:
                    await asyncio.sleep(wait)
                if self.down:
                    raise Unreachable("the API is down")
                yield WatchEvent(kind, copy.deepcopy(obj))
            changed = self.changed
            await changed.wait()
            if self.down:
                raise Unreachable("the API is down")

    async def create(self, resource, obj, namespace="", subresource=""):
        await self._call("create", resource, obj["metadata"]["name"])
        obj = copy.deepcopy(obj)
        metadata = obj["metadata"]
        if namespace:
            metadata["namespace"] = namespace
        key = (resource.plural, metadata.get("namespace", ""), metadata["name"])
        if key in self.objects:
            raise ApiError(409, "AlreadyExists", "already exists")
        metadata.setdefault("uid", f"uid-{self.version}")
        return await self._store("ADDED", key, obj)

    async def replace(self, resource, obj, subresource=""):
        metadata = obj["metadata"]
        await self._call("replace", resource, metadata["name"])
        old = self._find(resource, metadata["name"], metadata.get("namespace", ""))
        if metadata.get("resourceVersion", old["metadata"]["resourceVersion"]) != old["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "the object has been modified")
        return await self._store("MODIFIED", self._key(resource, obj), copy.deepcopy(obj))

    async def patch(self, resource, name, patch, namespace=""):
        await self._call("patch", resource, name)
        obj = copy.deepcopy(self._find(resource, name, namespace))
        if patch.style == "json":
            for step in patch.body:
                _json_step(obj, step)
        else:
            uid = patch.body.get("metadata", {}).get("uid")
            if uid not in (None, obj["metadata"]["uid"]):
                raise ApiError(409, "Conflict", "uid precondition")
            _merge(obj, patch.body)
        if patch.dry_run:
            return obj
        return await self._store("MODIFIED", self._key(resource, obj), obj)

    async def delete(self, resource, name, namespace="", options=Deletion()):
        await self._call("delete", resource, name)
        obj = copy.deepcopy(self._find(resource, name, namespace))
        metadata = obj["metadata"]
        if options.uid not in ("", metadata["uid"]):
            raise ApiError(409, "Conflict", "uid precondition")
        if options.resource_version not in ("", metadata["resourceVersion"]):
            raise ApiError(409, "Conflict", "resourceVersion precondition")
        grace = options.grace_seconds
        if resource.plural == "pods" and grace is None:
            grace = obj["spec"].get("terminationGracePeriodSeconds", 30)
        if resource.plural == "pods" and grace and not options.dry_run:
            at = vtime.now().timestamp() + grace
            metadata["deletionTimestamp"] = instant(at)
            metadata["deletionGracePeriodSeconds"] = grace
            return await self._store("MODIFIED", self._key(resource, obj), obj)
        if not options.dry_run:
            del self.objects[self._key(resource, obj)]
            self._tell("DELETED", resource.plural, obj)
        return obj

    # --- the stage ---

    def put(self, resource, obj):
        """Create or overwrite at once, as another actor would."""
        obj = copy.deepcopy(obj)
        metadata = obj["metadata"]
        key = self._key(resource, obj)
        metadata.setdefault("uid", f"uid-{metadata['name']}")
        self._put("MODIFIED" if key in self.objects else "ADDED", key, obj)
        return obj

    def drop(self, resource, name, namespace=""):
        obj = self.objects.pop((resource.plural, namespace, name))
        self._tell("DELETED", resource.plural, obj)

    def peek(self, resource, name, namespace=""):
        return self.objects.get((resource.plural, namespace, name))

    def break_down(self, down):
        self.down = down
        self._wake()

    # --- inside ---

    def _key(self, resource, obj):
        return (resource.plural, obj["metadata"].get("namespace", ""), obj["metadata"]["name"])

    def _find(self, resource, name, namespace):
        try:
            return self.objects[(resource.plural, namespace, name)]
        except KeyError:
            raise ApiError(404, "NotFound", f'{resource.plural} "{name}" not found') from None

    async def _call(self, verb, resource, name):
        await asyncio.sleep(READ_SECONDS)
        if self.down:
            raise Unreachable("the API is down")
        self.calls.append((verb, resource.plural, name, asyncio.get_running_loop().time()))

    async def _store(self, kind, key, obj):
        self._put(kind, key, obj)
        self.writes.append((key[0], key[2], asyncio.get_running_loop().time()))
        if self.lose_replies:
            self.lose_replies -= 1
            raise Unreachable("the reply was lost")
        await asyncio.sleep(READ_SECONDS)
        return copy.deepcopy(obj)

    def _put(self, kind, key, obj):
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        self.objects[key] = obj
        self._tell(kind, key[0], obj)

    def _tell(self, kind, plural, obj):
        if kind == "DELETED":
            self.version += 1
            obj = copy.deepcopy(obj)
            obj["metadata"]["resourceVersion"] = str(self.version)
        now = asyncio.get_running_loop().time()
        self.history.append((self.version, plural, kind, copy.deepcopy(obj), now))
        self._wake()

    def _wake(self):
        self.changed.set()
        self.changed = asyncio.Event()


def instant(seconds):
    from datetime import UTC, datetime

    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _selected(obj, select):
    if select.namespace and obj["metadata"].get("namespace", "") != select.namespace:
        return False
    for clause in filter(None, select.fields.split(",")):
        path, _, wanted = clause.partition("=")
        value = obj
        for part in path.split("."):
            value = (value or {}).get(part)
        if value != wanted:
            return False
    labels = obj["metadata"].get("labels") or {}
    return all(labels.get(k) == v for k, _, v in (c.partition("=") for c in filter(None, select.labels.split(","))))


def _merge(target, change):
    for key, value in change.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict):
            node = target.setdefault(key, {})
            _merge(node, value)
        else:
            target[key] = value


def _json_step(obj, step):
    parts = [part.replace("~1", "/").replace("~0", "~") for part in step["path"].split("/")[1:]]
    for part in parts[:-1]:
        obj = obj[part]
    last = parts[-1]
    if step["op"] == "test":
        if obj.get(last) != step["value"]:
            raise ApiError(422, "Invalid", f"test failed at {step['path']}")
    elif step["op"] == "remove":
        if last not in obj:
            raise ApiError(422, "Invalid", f"no {step['path']}")
        del obj[last]
    else:
        if step["op"] == "replace" and last not in obj:
            raise ApiError(422, "Invalid", f"no {step['path']}")
        obj[last] = step["value"]
