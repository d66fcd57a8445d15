"""The closed schema of each kind, and what is wrong with an object by it."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

SCHEMAS = Path(__file__).parent / "schemas"


def label(document: dict[str, Any]) -> str:
    """Kind and name, for people."""
    return f"{document.get('kind')}/{document.get('metadata', {}).get('name')}"


def schema_faults(document: dict[str, Any]) -> list[str]:
    """What is wrong with an object by the schema of its kind; a kind without a schema is wrong."""
    kind = f"{document.get('apiVersion', '')}_{document.get('kind', '')}".replace("/", "_")
    validator = _validators().get(kind)
    if validator is None:
        return [f"{label(document)}: no schema for {kind}"]
    found = [*validator.iter_errors(document)]
    for metadata in _metadata(document):
        found += _closed_metadata().iter_errors(metadata)
    return [f"{label(document)}: {error.json_path}: {error.message}" for error in found]


def _metadata(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The object's own, and that of its template: Knative's schemas leave both open."""
    spec = document.get("spec")
    template = spec.get("template") if isinstance(spec, dict) else None
    inner = template.get("metadata") if isinstance(template, dict) else None
    return [each for each in (document.get("metadata"), inner) if isinstance(each, dict)]


@cache
def _validators() -> dict[str, Draft202012Validator]:
    return {path.stem: Draft202012Validator(json.loads(path.read_text())) for path in SCHEMAS.glob("*/*.json")}


@cache
def _closed_metadata() -> Draft202012Validator:
    schema = _validators()["v1_Secret"].schema
    assert isinstance(schema, dict)
    return Draft202012Validator(schema["properties"]["metadata"])
