"""deploy/ is what ``tidegate install`` applies: up to date, and no more open than its values say.

Helm itself is not needed: a template differs from the object by marks of four kinds, and what they stand for is put in
here. Where Helm's own library is installed (``helm_python``) it renders the chart too, and is compared; kustomize is
kubectl's own.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tools import draw_deploy

from tidegate import __version__
from tidegate.agent.manifests import Installation
from tidegate.cli.parts import PARTS, pieces_of

DEPLOY = Path(__file__).parents[2] / "deploy"
CHART = DEPLOY / draw_deploy.CHART
IMAGE = f"tidegate:{__version__}"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
MARK = re.compile(r"\{\{.*?\}\}")
IF = re.compile(r"^\{\{- if \.Values\.createNamespace \}\}\n(.*?)^\{\{- end \}\}\n", re.DOTALL | re.MULTILINE)
KNOWN = {
    "{{- if .Values.createNamespace }}", "{{- end }}", "{{ .Values.replicas }}", "{{ .Values.image | quote }}",
    "{{ default .Values.image .Values.operatorImage | quote }}",
    *(f"{{{{- toYaml .Values.resources.{name} | nindent 10 }}}}" for name in VALUES["resources"]),
}  # fmt: skip


def rendered(values):
    """The chart, by a renderer that knows these marks and no other."""
    found = []
    for path in sorted(CHART.glob("templates/*.yaml")):
        text = IF.sub(lambda match: match[1] if values["createNamespace"] else "", path.read_text("utf-8"))
        text = text.replace("{{ .Values.image | quote }}", json.dumps(values["image"]))
        operator = json.dumps(values["operatorImage"] or values["image"])
        text = text.replace("{{ default .Values.image .Values.operatorImage | quote }}", operator)
        text = text.replace("{{ .Values.replicas }}", str(values["replicas"]))
        for name, resources in values["resources"].items():
            text = text.replace(f"{{{{- toYaml .Values.resources.{name} | nindent 10 }}}}", json.dumps(resources))
        assert not MARK.search(text), path
        found += [one for one in yaml.safe_load_all(text) if one]
    return by_name(found)


def by_name(manifests):
    found = {
        f"{one['kind']}/{one['metadata'].get('namespace', '')}/{one['metadata']['name']}": one for one in manifests
    }
    return found


def applied(of=Installation(IMAGE), parts=PARTS):
    return by_name(one.manifest for one in pieces_of(of, parts))


def kinds_apart(manifests):
    return {name: one for name, one in manifests.items() if one["kind"] != "CustomResourceDefinition"}


def test_it_is_up_to_date():
    drawn = draw_deploy.drawn()
    there = {str(path.relative_to(DEPLOY)): path.read_text("utf-8") for path in DEPLOY.rglob("*") if path.is_file()}
    assert there.keys() == drawn.keys(), "make deploy"
    for name, text in drawn.items():
        assert there[name] == text, f"{name} is another: make deploy"


def test_the_charts_defaults_are_the_very_objects_that_install_applies():
    assert rendered(VALUES) == kinds_apart(applied())
    kinds = by_name(yaml.safe_load_all((CHART / "crds" / "crds.yaml").read_text("utf-8")))
    assert kinds | kinds_apart(applied()) == applied()


def test_nothing_else_in_it_is_a_template():
    marks = {mark for path in CHART.rglob("*.yaml") for mark in MARK.findall(path.read_text("utf-8"))}
    assert marks == KNOWN


def test_its_values_change_what_they_name_and_nothing_else():
    values = {**VALUES, "image": "r.example/a:1", "operatorImage": "r.example/b:2", "replicas": 3}
    other = rendered(values)
    expected = kinds_apart(applied(Installation("r.example/a:1", operator_image="r.example/b:2")))
    expected["Deployment/tidegate-system/tidegate-operator"]["spec"]["replicas"] = 3
    assert other == expected
    assert rendered({**VALUES, "createNamespace": False}).keys() == rendered(VALUES).keys() - {
        "Namespace//tidegate-system"
    }


def test_the_chart_says_which_version_it_is_of():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)


def test_kubectls_kustomize_builds_the_base_and_an_overlay_sets_the_image(tmp_path):
    def build(folder):
        kubectl = Path(sys.executable).parent / "kubectl"
        ran = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stderr
        return by_name(yaml.safe_load_all(ran.stdout))

    base = DEPLOY / draw_deploy.BASE
    assert build(base) == applied()
    target = tmp_path / "base"
    target.symlink_to(base)
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    for path in base.iterdir():
        (overlay / path.name).write_text(path.read_text("utf-8"))
    images = 'images: [{name: tidegate, newName: r.example/tidegate, newTag: "7"}]\n'
    with (overlay / "kustomization.yaml").open("a") as file:
        file.write(images)
    assert build(overlay) == applied(Installation("r.example/tidegate:7"))


@pytest.mark.skipif(importlib.util.find_spec("helm_python") is None, reason="Helm's library is not installed")
def test_helm_itself_renders_the_same():
    assert helms(VALUES) == rendered(VALUES)
    values = {**VALUES, "image": "r.example/a:1", "operatorImage": "r.example/b:2", "replicas": 3}
    agent = {**VALUES["resources"]["agent"], "limits": {"memory": "1Gi"}}  # Helm keeps the defaults beside it
    values["resources"] = {**VALUES["resources"], "agent": agent}
    assert helms(values) == rendered(values)
    assert helms({**VALUES, "createNamespace": False}) == rendered({**VALUES, "createNamespace": False})


def helms(values):
    """By Helm's Go library (helm-python-sdk: no program, and nothing is asked of a cluster)."""
    from helm_python import Chart

    with Chart.load(str(CHART)) as chart:
        texts = chart.render(values, name="tidegate", namespace="default")
    found = [one for name, text in texts.items() if name.endswith(".yaml") for one in yaml.safe_load_all(text) if one]
    return kinds_apart(by_name(found))
