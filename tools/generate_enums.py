"""Write the enumerations of the API from a checkout of k8s.io/api: types marked ``+enum``, their values and comments.

    git clone https://github.com/kubernetes/api && python tools/generate_enums.py api \\
        src/tidegate/lab/apiserver/schema/data

The published JSON schemas have no enums, but a server's OpenAPI document does (OpenAPIEnums, GA in 1.26), and
``kubectl explain`` prints them. Format of ``enums.json.gz``: {type: {field: [[value, comment], ...]}}, values sorted.
A bare repository is read as well as a work tree.
"""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

GROUPS = [
    "admissionregistration",
    "apps",
    "autoscaling",
    "batch",
    "coordination",
    "core",
    "discovery",
    "events",
    "networking",
    "node",
    "policy",
    "rbac",
    "scheduling",
    "storage",
]
_TYPE = re.compile(r"^type (\w+) string\b")
_CONSTANT = re.compile(r'^\s*(\w+)\s+(\w+)\s*=\s*"([^"]*)"')
_STRUCT = re.compile(r"^type (\w+) struct \{")
_FIELD = re.compile(r"^\s+\w+\s+([*\[\]]*)(?:\w+\.)?(\w+)\s+`.*json:\"(\w+)")


def read(checkout: Path, path: str) -> str:
    file = checkout / path
    if file.is_file():
        return file.read_text()
    command = ["git", "-C", str(checkout), "show", f"HEAD:{path}"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def told(comment: list[str], name: str) -> str:
    """A constant's comment as kube-openapi tells it: on one line, without the constant's own name before it."""
    text = " ".join(line for line in comment if not line.startswith("+")).strip()
    return " ".join(text.removeprefix(name).split())


def parse(source: str) -> tuple[set[str], dict[str, list[tuple[str, str]]], dict[str, dict[str, str]]]:
    """Enum types, values by type, and per struct the type of each field that could be one."""
    enums: set[str] = set()
    values: dict[str, list[tuple[str, str]]] = {}
    fields: dict[str, dict[str, str]] = {}
    comment: list[str] = []
    struct = ""
    for line in source.splitlines():
        text = line.strip()
        if text.startswith("//"):
            comment.append(text.removeprefix("//").strip())
            continue
        if found := _TYPE.match(line):
            if "+enum" in comment:
                enums.add(found[1])
        elif found := _STRUCT.match(line):
            struct = found[1]
        elif line == "}":
            struct = ""
        elif struct and (found := _FIELD.match(line)):
            fields.setdefault(struct, {})[found[3]] = ("[]" if "[]" in found[1] else "") + found[2]
        elif found := _CONSTANT.match(line):
            values.setdefault(found[2], []).append((found[3], told(comment, found[1])))
        comment = []
    return enums, values, fields


def main() -> None:
    checkout, folder = Path(sys.argv[1]), Path(sys.argv[2])
    table: dict[str, dict[str, list[tuple[str, str]]]] = {}
    parsed = {}
    for group in GROUPS:
        for version in ("v1", "v2"):
            source = read(checkout, f"{group}/{version}/types.go")
            if source:
                parsed[f"{group}.{version}"] = parse(source)
    shared = {name: rows for enums, values, _ in parsed.values() for name, rows in values.items() if name in enums}
    for package, (enums, values, fields) in parsed.items():
        known = {name: rows for name, rows in shared.items() if name not in values or name in enums}
        known |= {name: values[name] for name in enums if name in values}
        for struct, members in fields.items():
            for field, word in members.items():
                if word.removeprefix("[]") in known:
                    rows = sorted(known[word.removeprefix("[]")])
                    table.setdefault(f"{package}.{struct}", {})[field] = rows
    text = json.dumps(dict(sorted(table.items())), separators=(",", ":"), ensure_ascii=False).encode()
    path = folder / "enums.json.gz"
    path.write_bytes(gzip.compress(text, 9, mtime=0))
    print(f"{len(table)} types, {sum(map(len, table.values()))} fields, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
