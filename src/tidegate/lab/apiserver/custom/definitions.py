"""From definitions to served kinds: names, conditions, rows, and the end of a definition with its instances.

What four controllers of the real server do beside each other (naming, establishing, discovery, finalizer of
apiextensions-apiserver/pkg/controller) is done here right after the write that asks for it: every change of a
definition is looked at once its watchers have been told, and what follows from it is the next write.
"""

from __future__ import annotations

from tidegate import vtime
from tidegate.kube.api import JsonObject
from tidegate.kube.errors import ApiError
from tidegate.lab.apiserver import deletions
from tidegate.lab.apiserver.custom import kinds
from tidegate.lab.apiserver.custom.strategy import CLEANUP, is_true, with_condition
from tidegate.lab.apiserver.deletions import DeleteOptions
from tidegate.lab.apiserver.registry import Row
from tidegate.lab.apiserver.verbs import Options, Verbs
from tidegate.lab.apiserver.versions import Event, Version

GROUP, PLURAL = "apiextensions.k8s.io", "customresourcedefinitions"


class Definitions:
    """Keeps the registry in step with the stored definitions."""

    def __init__(self, verbs: Verbs) -> None:
        self._verbs = verbs
        self._row = verbs.registry.named(GROUP, PLURAL)
        self._served: dict[str, list[Row]] = {}
        """Rows per definition, the storage version's first; not all of them need be in the registry."""
        self._made_from: dict[str, JsonObject] = {}
        self._emptying: list[str] = []
        self._collection = verbs.store.collection(self._row)
        self._collection.after = self._changed

    # -- definitions

    def _changed(self, event: Event) -> None:
        if event.new is None:
            assert event.old is not None
            self._gone(event.old.object)
            return
        definition = event.new.object
        name = definition["metadata"]["name"]
        if definition["metadata"].get("deletionTimestamp"):
            self._serve(definition)
            self._empty(name)
            return
        if self._settle_names(name, definition) or self._establish(name, definition):
            return  # the write has been looked at in its turn
        if is_true(definition, "Established"):
            self._serve(definition)

    def _write(self, name: str, definition: JsonObject) -> None:
        """A new version of a definition: the server's own write."""
        old = self._collection.get("", name)
        assert old is not None
        obj = {**definition, "metadata": dict(old.object["metadata"])}
        self._verbs.store.replace(self._row, old, obj)

    def _settle_names(self, name: str, definition: JsonObject) -> bool:
        """The naming controller: what is asked for and free is accepted. True when that was written down."""
        wanted, status = definition["spec"]["names"], definition.get("status") or {}
        accepted = status.get("acceptedNames") or {}
        if wanted == accepted:
            return False
        names, conflict = _accepted(wanted, accepted, self._taken(name, definition["spec"]["group"]))
        if conflict is None:
            conflict = ("NamesAccepted", "True", "NoConflicts", "no conflicts found")
        now = vtime.now()
        made = with_condition({**definition, "status": {**status, "acceptedNames": names}}, conflict, now)
        if not is_true(made, "Established"):
            said = ("Established", "False", "NotAccepted", "not all names are accepted")
            if conflict[1] == "True":
                said = ("Established", "False", "Installing", "the initial names have been accepted")
            made = with_condition(made, said, now)
        if made["status"] == status:
            return False
        self._write(name, made)
        if names != accepted:
            self._reconsider(name, definition["spec"]["group"])
        return True

    def _establish(self, name: str, definition: JsonObject) -> bool:
        if is_true(definition, "Established") or not is_true(definition, "NamesAccepted"):
            return False
        said = ("Established", "True", "InitialNamesAccepted", "the initial names have been accepted")
        self._write(name, with_condition(definition, said, vtime.now()))
        return True

    def _taken(self, name: str, group: str) -> tuple[set[str], set[str]]:
        """The resource names and the kinds that the group's other definitions have."""
        resources: set[str] = set()
        found: set[str] = set()
        for version in self._collection.versions():
            other = version.object
            if other["spec"]["group"] != group or other["metadata"]["name"] == name:
                continue
            names = (other.get("status") or {}).get("acceptedNames") or {}
            resources |= {names.get("plural", ""), names.get("singular", ""), *(names.get("shortNames") or ())}
            found |= {names.get("kind", ""), names.get("listKind", "")}
        return resources - {""}, found - {""}

    def _reconsider(self, name: str, group: str) -> None:
        """A name may have become free for another definition of the group."""
        for version in list(self._collection.versions()):
            other = version.object
            if other["spec"]["group"] == group and other["metadata"]["name"] != name:
                self._settle_names(other["metadata"]["name"], other)

    # -- rows

    def _serve(self, definition: JsonObject) -> None:
        """Have the registry serve what an established definition says."""
        name, spec = definition["metadata"]["name"], definition["spec"]
        names = (definition.get("status") or {}).get("acceptedNames")
        said = {"spec": spec, "names": names, "ends": kinds.is_terminating(definition)}
        if not is_true(definition, "Established") or self._made_from.get(name) == said:
            return
        before = self._served.get(name)
        rows = kinds.rows(definition)
        self._served[name], self._made_from[name] = rows, said
        self._register(spec["group"])
        store, stored = self._verbs.store, rows[0]
        if before is None:
            store.collection(stored).after = lambda event: self._instance_changed(name, event)
            return
        store.rekey(before[0], stored, lambda obj: kinds.reread(stored, obj))

    def _register(self, group: str) -> None:
        """All rows of the group that are served, the most stable version first, as discovery lists them."""
        rows = [
            row
            for name, found in self._served.items()
            for row in found
            if row.resource.group == group and row.resource.version in kinds.served(self._made_from[name])
        ]
        rows.sort(key=lambda row: (kinds.priority(row.resource.version), row.resource.plural))
        self._verbs.registry.replace_custom(group, rows)

    def _gone(self, definition: JsonObject) -> None:
        name, group = definition["metadata"]["name"], definition["spec"]["group"]
        rows = self._served.pop(name, None)
        self._made_from.pop(name, None)
        if rows is not None:
            self._register(group)
            self._verbs.store.drop(rows[0])
        self._reconsider(name, group)

    # -- the end

    def _instance_changed(self, name: str, event: Event) -> None:
        if event.new is None and name not in self._emptying:
            version = self._collection.get("", name)
            if version is not None and kinds.is_terminating(version.object):
                self._finish(name)

    def _empty(self, name: str) -> None:
        """The finalizer controller: delete the instances; the definition goes with the last of them."""
        version = self._collection.get("", name)
        if version is None or CLEANUP not in (version.object["metadata"].get("finalizers") or ()):
            return
        if name in self._emptying:
            return
        self._emptying.append(name)
        try:
            said = ("Terminating", "True", "InstanceDeletionInProgress", "CustomResource deletion is in progress")
            self._write(name, with_condition(version.object, said, vtime.now()))
            self._delete_instances(name)
        finally:
            self._emptying.remove(name)
        self._finish(name)

    def _delete_instances(self, name: str) -> None:
        rows = self._served.get(name)
        if rows is None:
            return
        for version in list(self._verbs.store.collection(rows[0]).versions()):
            metadata = version.object["metadata"]
            place = (metadata.get("namespace", ""), metadata["name"])
            try:
                deletions.delete(self._verbs, rows[0], place, DeleteOptions(), Options())
            except ApiError as error:
                if not error.is_not_found:
                    raise

    def _finish(self, name: str) -> None:
        """Take the finalizer off once nothing is left; with the last finalizer the definition is gone."""
        rows, old = self._served.get(name), self._collection.get("", name)
        if old is None or (rows is not None and any(True for _ in self._verbs.store.collection(rows[0]).versions())):
            return
        definition = old.object
        if CLEANUP not in (definition["metadata"].get("finalizers") or ()):
            return
        said = ("Terminating", "False", "InstanceDeletionCompleted", "removed all instances")
        if rows is None:
            said = ("Terminating", "False", "NeverEstablished", "resource was never established")
        made = with_condition(definition, said, vtime.now())
        left = [one for one in definition["metadata"]["finalizers"] if one != CLEANUP]
        metadata = {key: value for key, value in made["metadata"].items() if key != "finalizers"}
        if left:
            self._verbs.store.replace(self._row, old, {**made, "metadata": {**metadata, "finalizers": left}})
        else:
            self._verbs.remove(self._row, Version({**made, "metadata": metadata}, old.rv))


def _accepted(
    wanted: JsonObject, had: JsonObject, taken: tuple[set[str], set[str]]
) -> tuple[JsonObject, tuple[str, str, str, str] | None]:
    """The names that may be had, and the condition that says which may not (calculateNamesAndConditions)."""
    resources, found = taken
    names: JsonObject = {**had}
    conflict: tuple[str, str, str, str] | None = None
    for key, used, reason in (
        ("plural", resources, "PluralConflict"),
        ("singular", resources, "SingularConflict"),
        ("shortNames", resources, "ShortNamesConflict"),
        ("kind", found, "KindConflict"),
        ("listKind", found, "ListKindConflict"),
    ):
        asked = wanted.get(key)
        held = had.get(key) or ()
        each = [one for one in asked or () if one not in held] if key == "shortNames" else [asked or ""]
        in_use = [one for one in each if one in used and one != had.get(key)]
        if in_use:
            texts = [f'"{one}" is already in use' for one in in_use]
            message = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
            conflict = ("NamesAccepted", "False", reason, message)
        elif asked:
            names[key] = asked
        else:
            names.pop(key, None)
    if wanted.get("categories"):
        names["categories"] = wanted["categories"]
    else:
        names.pop("categories", None)
    return names, conflict
