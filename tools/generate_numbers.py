"""Write the protobuf number table from kubectl's own binary: field numbers are facts of the wire.

kubectl is a Go program that carries, for every API struct, Go's run-time type description: fields, their types and
the struct tags ``protobuf:"bytes,2,opt,name=spec"`` and ``json:"spec,omitempty"``. This reads them out of the ELF
file (layout: Go 1.26 internal/abi/type.go) and writes the closure of the kinds clients send:

    python tools/generate_numbers.py .venv/bin/kubectl src/tidegate/lab/apiserver/schema/data/numbers.txt

Format of the table: see ``schema/protobuf.py``.
"""

from __future__ import annotations

import re
import struct
import sys
from functools import cached_property
from pathlib import Path

ROOTS = """
core.v1: Binding ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume PersistentVolumeClaim
core.v1: Pod PodTemplate ReplicationController ResourceQuota Secret Service ServiceAccount
apps.v1: ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet
batch.v1: CronJob Job
autoscaling.v1: HorizontalPodAutoscaler Scale
autoscaling.v2: HorizontalPodAutoscaler
policy.v1: Eviction PodDisruptionBudget
discovery.v1: EndpointSlice
events.v1: Event
coordination.v1: Lease
networking.v1: Ingress IngressClass NetworkPolicy
rbac.v1: ClusterRole ClusterRoleBinding Role RoleBinding
scheduling.v1: PriorityClass
storage.v1: StorageClass
authentication.v1: SelfSubjectReview TokenRequest TokenReview
authorization.v1: LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview SubjectAccessReview
meta.v1: DeleteOptions
"""

# Types whose JSON is not the shape of their struct; the decoder knows them by these names.
SPECIAL = {
    "meta.v1.Time": "Time",
    "meta.v1.MicroTime": "MicroTime",
    "meta.v1.FieldsV1": "raw",
    "runtime.RawExtension": "raw",
    "intstr.IntOrString": "IntOrString",
    "resource.Quantity": "Quantity",
    "authentication.v1.ExtraValue": "strings",
    "authorization.v1.ExtraValue": "strings",
}
# Go's reflect.Kind
BOOL, INT, INT32, INT64, FLOAT64, MAP, POINTER, SLICE, STRING, STRUCT = 1, 2, 5, 6, 14, 21, 22, 23, 24, 25
UINT8 = 8
SCALARS = {BOOL: "bool", INT: "int", INT32: "int", INT64: "int", FLOAT64: "double", STRING: "string"}


class Image:
    """The sections of an ELF file by address."""

    def __init__(self, path: Path) -> None:
        self.raw = path.read_bytes()
        table, size, count = (
            struct.unpack_from("<Q", self.raw, 0x28)[0],
            struct.unpack_from("<H", self.raw, 0x3A)[0],
            struct.unpack_from("<H", self.raw, 0x3C)[0],
        )
        strings = struct.unpack_from("<H", self.raw, 0x3E)[0]
        rows = [struct.unpack_from("<IIQQQQ", self.raw, table + index * size) for index in range(count)]
        names_at = rows[strings][4]
        self.sections = {}
        for name_at, _, _, address, offset, length in rows:
            end = self.raw.index(b"\0", names_at + name_at)
            self.sections[self.raw[names_at + name_at : end].decode()] = (address, offset, length)

    def offset(self, address: int) -> int:
        for start, offset, length in self.sections.values():
            if start and start <= address < start + length:
                return address - start + offset
        raise ValueError(f"no section holds {address:#x}")

    def number(self, address: int, kind: str = "<Q") -> int:
        return int(struct.unpack_from(kind, self.raw, self.offset(address))[0])

    def _varint(self, at: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            byte = self.raw[at]
            value, at, shift = value | (byte & 0x7F) << shift, at + 1, shift + 7
            if byte < 0x80:
                return value, at

    def name(self, address: int) -> tuple[str, str]:
        """A reflect name: its text and, for fields, its tag."""
        at = self.offset(address)
        flags = self.raw[at]
        length, at = self._varint(at + 1)
        text, tag = self.raw[at : at + length].decode(), ""
        if flags & 2:
            size, at = self._varint(at + length)
            tag = self.raw[at : at + size].decode()
        return text, tag

    @cached_property
    def base(self) -> int:
        """Where offsets of names and types count from: the start of read-only data."""
        return self.sections[".rodata"][0]


class Types:
    """Go's run-time types of one program."""

    def __init__(self, image: Image) -> None:
        self.image = image

    def kind(self, at: int) -> int:
        return self.image.number(at + 23, "<B") & 31

    def full_name(self, at: int) -> str:
        """``k8s.io/api/core/v1.Pod`` for named types, "" for others."""
        flags = self.image.number(at + 20, "<B")
        if not flags & 4:
            return ""
        text = self.image.name(self.image.base + self.image.number(at + 40, "<i"))[0]
        text = text[1:] if flags & 2 else text
        if not flags & 1:
            return text
        sizes = {STRUCT: 80, POINTER: 56, SLICE: 56, MAP: 104}
        extra = at + sizes.get(self.kind(at), 48)
        package = self.image.name(self.image.base + self.image.number(extra, "<i"))[0]
        return f"{package}.{text.rsplit('.', 1)[-1]}"

    def element(self, at: int) -> int:
        """What a pointer or slice holds, or a map's values."""
        return self.image.number(at + (56 if self.kind(at) == MAP else 48))

    def fields(self, at: int) -> list[tuple[str, str, int]]:
        """A struct's fields: Go name, tag, type."""
        start, count = self.image.number(at + 56), self.image.number(at + 64)
        found = []
        for index in range(count):
            here = start + index * 24
            found.append((*self.image.name(self.image.number(here)), self.image.number(here + 8)))
        return found

    def structs(self) -> dict[str, int]:
        """Every named struct some pointer type points to, by short name."""
        address, _, length = self.image.sections[".typelink"]
        found = {}
        for index in range(length // 4):
            at = self.image.base + self.image.number(address + index * 4, "<i")
            if self.kind(at) != POINTER or self.kind(self.element(at)) != STRUCT:
                continue
            name = short(self.full_name(self.element(at)))
            if name:
                found[name] = self.element(at)
        return found


def short(name: str) -> str:
    """``k8s.io/api/core/v1.Pod`` -> ``core.v1.Pod``; "" for what is no API type."""
    package, _, text = name.rpartition(".")
    if not package.startswith(("k8s.io/api/", "k8s.io/apimachinery/pkg/")):
        return ""
    parts = package.split("/")
    if re.fullmatch(r"v\d+\w*", parts[-1]):
        return f"{parts[-2]}.{parts[-1]}.{text}"
    return f"{parts[-1]}.{text}"


def word(types: Types, at: int) -> str:
    """A field's type as the table writes it."""
    kind = types.kind(at)
    name = short(types.full_name(at))
    if name in SPECIAL:
        return SPECIAL[name]
    if kind == POINTER:
        return "?" + word(types, types.element(at))
    if kind == SLICE:
        element = types.element(at)
        return "bytes" if types.kind(element) == UINT8 else "[]" + word(types, element)
    if kind == MAP:
        return "{}" + word(types, types.element(at))
    return name if kind == STRUCT else SCALARS[kind]


def message(types: Types, at: int) -> list[tuple[int, str, str]]:
    """Number, JSON name and type word of each field that is on the wire; an inlined struct's name is ``^``."""
    found = []
    for _, tag, kind in types.fields(at):
        wire = re.search(r'protobuf:"\w+,(\d+),', tag)
        json_name = re.search(r'json:"([^,"]*)', tag)
        if wire and json_name and json_name[1] != "-":
            found.append((int(wire[1]), json_name[1] or "^", word(types, kind)))
    return sorted(found)


def main() -> None:
    types = Types(Image(Path(sys.argv[1])))
    structs = types.structs()
    waiting = [f"{line.split(': ')[0]}.{name}" for line in ROOTS.strip().splitlines()
               for name in line.split(": ")[1].split()]  # fmt: skip
    table: dict[str, list[tuple[int, str, str]]] = {}
    while waiting:
        name = waiting.pop()
        if name in table:
            continue
        table[name] = message(types, structs[name])
        for _, _, text in table[name]:
            bare = text.replace("[]", "").replace("{}", "").replace("?", "")
            if "." in bare:
                waiting.append(bare)
    lines = [f"{name}: " + "; ".join(f"{n} {field} {text}" for n, field, text in table[name]) for name in sorted(table)]
    Path(sys.argv[2]).write_text("\n".join(lines) + "\n")
    print(f"{len(table)} messages, {sum(len(fields) for fields in table.values())} fields")


if __name__ == "__main__":
    main()
