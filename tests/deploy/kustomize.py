"""The manifests of Knative, and a reader of kustomizations as far as they need it: tests need no kustomize.

Known are `resources`, `namespace`, `images` and `patches`: merge patches of objects without a schema of their own
(lists are replaced), `$patch: delete`, and JSON patches (RFC 6902) with a target. Anything else is an error.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from tests.support.process import ROOT

Object = dict[str, Any]
KNATIVE = ROOT / "deploy" / "knative"
BASE = KNATIVE / "base"
PRODUCTION = KNATIVE / "overlays" / "production"
OIDC = KNATIVE / "overlays" / "production-oidc"
KAFKA = KNATIVE / "overlays" / "production-kafka"
KEEPS = KNATIVE / "overlays" / "production-keep"
OVERLAYS = (BASE, PRODUCTION, OIDC, KAFKA, KEEPS)
# What has no namespace.
_CLUSTER = {"Namespace", "ClusterRoleBinding"}
_KNOWN = {"apiVersion", "kind", "resources", "namespace", "images", "patches"}


def label(document: Object) -> str:
    """Return kind and name."""
    return f"{document.get('kind')}/{document.get('metadata', {}).get('name')}"


def find(objects: list[Object], kind: str, name: str) -> Object:
    """Return the object of this kind and name."""
    return next(document for document in objects if label(document) == f"{kind}/{name}")


def documents(text: str) -> list[Object]:
    """The objects of a YAML file."""
    return [document for document in yaml.safe_load_all(text) if document]


def render(folder: Path) -> list[Object]:
    """The objects that `kustomize build` would print, in the order in which they are written."""
    (kustomization,) = documents((folder / "kustomization.yaml").read_text())
    unknown = set(kustomization) - _KNOWN
    if unknown:
        raise ValueError(f"{folder.name}: this reader does not know {sorted(unknown)}")
    objects: list[Object] = []
    for name in kustomization["resources"]:
        path = folder / name
        objects += render(path) if path.is_dir() else documents(path.read_text())
    for patch in kustomization.get("patches", []):
        text = (folder / patch["path"]).read_text() if "path" in patch else patch["patch"]
        if "target" in patch:
            operations: Any = documents(text)[0]
            for target in _targets(objects, patch["target"]):
                for operation in operations:
                    _operate(target, operation)
        else:
            for change in documents(text):
                objects = _merged_into(objects, change)
    for document in objects:
        if "namespace" in kustomization and document["kind"] not in _CLUSTER:
            document["metadata"]["namespace"] = kustomization["namespace"]
        for container in document.get("spec", {}).get("template", {}).get("spec", {}).get("containers", []):
            for image in kustomization.get("images", []):
                if container["image"] == image["name"]:
                    container["image"] = f"{image['newName']}:{image['newTag']}"
    return objects


def _targets(objects: list[Object], target: dict[str, str]) -> list[Object]:
    found = [
        document
        for document in objects
        if document["kind"] == target["kind"] and re.fullmatch(target["name"], document["metadata"]["name"])
    ]
    if not found:
        raise ValueError(f"no {target['kind']} is called {target['name']}")
    return found


def _merged_into(objects: list[Object], change: Object) -> list[Object]:
    deletes = change.pop("$patch", None) == "delete"
    same = [document for document in objects if label(document) == label(change)]
    if len(same) != 1:
        raise ValueError(f"{len(same)} objects are {label(change)}")
    if deletes:
        return [document for document in objects if document is not same[0]]
    _merge(same[0], change)
    return objects


def _merge(into: Object, change: Object) -> None:
    for key, value in change.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _operate(document: Object, operation: Object) -> None:
    *steps, last = (step.replace("~1", "/").replace("~0", "~") for step in operation["path"].split("/")[1:])
    node: Any = document
    for step in steps:
        node = node[int(step)] if isinstance(node, list) else node[step]
    key: Any = int(last) if isinstance(node, list) and last != "-" else last
    match operation["op"]:
        case "test":
            if node[key] != operation["value"]:
                raise ValueError(f"{operation['path']} is {node[key]!r}, and not {operation['value']!r}")
        case "replace":
            # It must be there.
            assert node[key] is not None
            node[key] = operation["value"]
        case "add" if isinstance(node, list):
            node.insert(len(node) if key == "-" else key, operation["value"])
        case "add":
            node[key] = operation["value"]
        case other:
            raise ValueError(f"this reader does not know the operation {other!r}")
