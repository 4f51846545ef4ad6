"""docs/observers.md: its example is a valid file, and its table of fields is the schema's."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import msgspec
import pytest
import yaml

from tidegate.observers import config, http_check
from tidegate.observers.config import ObserverFields

PAGE = (Path(__file__).parents[2] / "docs" / "observers.md").read_text("utf-8")
SECTION = PAGE.split("## Others than nodes\n", 1)[1]
EXAMPLES = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", SECTION, re.DOTALL)]


def rows(section):
    return dict(re.findall(r"^\| `([A-Za-z]+)` \| (.+?) \|", section, re.MULTILINE))


def test_the_example_is_a_valid_file_and_shows_every_kind():
    text = re.search(r"```yaml\n(observers:.*?)```", SECTION, re.DOTALL)[1]
    found = config.parse(text)
    assert {one.kind for one in found} == set(config.KINDS)
    shown = {key for one in EXAMPLES[0]["observers"] for key in one}
    assert shown == {field.encode_name for field in msgspec.structs.fields(ObserverFields)}


def test_the_fields_and_their_defaults_are_the_schemas():
    told = rows(SECTION.split("An unknown field")[0])
    fields = {field.encode_name: field for field in msgspec.structs.fields(ObserverFields)}
    assert told.keys() == fields.keys()
    for name, default in told.items():
        if fields[name].required:
            assert default == "-"
        elif name not in ("where", "options"):
            assert default.strip("`") == str(fields[name].default)


def test_the_options_of_http_are_the_schemas():
    told = rows(SECTION.split("### http\n")[1].split("\n### ")[0])
    assert told.keys() == {field.encode_name for field in msgspec.structs.fields(http_check.Options)}


def test_every_kind_has_a_section():
    headings = {heading.lower() for heading in re.findall(r"^### (.+)$", SECTION, re.MULTILINE)}
    assert set(config.KINDS) <= headings


def test_the_ingress_for_the_fence_is_one_that_traefik_takes():
    [ingress] = [one for one in EXAMPLES if one.get("kind") == "Ingress"]
    backend = ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert (ingress["metadata"]["namespace"], backend) == (
        "tidegate-system", {"name": "tidegate-fence-main", "port": {"name": "fence"}}
    )  # fmt: skip


WORDS = (
    "loadbalancer/aws",
    "loadbalancer/gcp",
    "dns/cluster",
    "dns/external-dns",
    "crd/traefik.io",
    "dataplane/cilium",
)


@pytest.mark.parametrize("word", WORDS)
def test_what_an_observer_may_cover_is_listed(word):
    assert f"`{word}`" in SECTION


@pytest.mark.parametrize(
    ("kind", "module"), [("dns", "dns"), ("aws-target-group", "aws"), ("gcp-neg", "gcp"), ("cilium", "cilium")]
)
def test_the_options_of_a_kind_are_its_schemas(kind, module):
    told = rows(SECTION.split(f"### {kind}\n")[1].split("\n### ")[0])
    options = importlib.import_module(f"tidegate.observers.{module}").Options
    assert told.keys() == {field.encode_name for field in msgspec.structs.fields(options)}
