"""The API documentation as one static page.

It is rendered here, because the pages that are usual for this (Swagger UI, Redoc, Scalar) either
load themselves from other people's servers, which a sidecar may not reach, or are megabytes of
script of a version that does not read OpenAPI 3.1 (`swagger-ui-bundle` on PyPI).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem }
code, pre { font: 14px/1.4 ui-monospace, monospace }
pre { padding: .75rem; border: 1px solid #8886; border-radius: .4rem; overflow-x: auto }
table { border-collapse: collapse; width: 100% }
td, th { border-bottom: 1px solid #8886; padding: .25rem .75rem .25rem 0; text-align: left;
  vertical-align: top }
h2 { margin-top: 2.5rem }
"""


def docs_page(document: dict[str, Any]) -> str:
    """Render an OpenAPI document as HTML that needs neither scripts nor other servers."""
    info = document["info"]
    title = f"{escape(info['title'])} {escape(info['version'])}"
    return "".join(
        [
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
            '<meta name="viewport" content="width=device-width">',
            f"<style>{_STYLE}</style></head><body><h1>{title}</h1>",
            f"<p>{escape(info['description'])}</p>",
            '<p>For machines: <a href="openapi.json">openapi.json</a></p>',
            *_operations(document["paths"]),
            "<h1>Messages</h1>",
            *_schemas(document["components"]["schemas"]),
            "</body></html>",
        ]
    )


def _operations(paths: dict[str, Any]) -> Iterator[str]:
    for path, methods in paths.items():
        for method, operation in methods.items():
            yield f"<h2><code>{method.upper()} {escape(path)}</code></h2>"
            yield f"<p>{escape(operation['summary'])}</p>"
            yield from _request(path, operation)
            yield from _responses(operation["responses"])


def _request(path: str, operation: dict[str, Any]) -> Iterator[str]:
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "header":
            name, about = escape(parameter["name"]), escape(parameter["description"])
            yield f"<p>Header <code>{name}</code>: {about}</p>"
    if "requestBody" not in operation:
        return
    content = operation["requestBody"]["content"]["application/json"]
    yield f"<p>Body: {_type(content['schema'])}</p>"
    for example in content["examples"].values():
        body = escape(json.dumps(example["value"], ensure_ascii=False))
        yield f"<pre>curl http://localhost:8080{escape(path)} -d '{body}'</pre>"


def _responses(responses: dict[str, Any]) -> Iterator[str]:
    yield "<table>"
    for status, response in responses.items():
        types = [_type(body.get("schema", {})) for body in response.get("content", {}).values()]
        about = escape(response["description"])
        yield f"<tr><td>{escape(status)}</td><td>{' '.join(types)}</td><td>{about}</td></tr>"
    yield "</table>"


def _schemas(schemas: dict[str, Any]) -> Iterator[str]:
    for name, schema in schemas.items():
        yield f'<h3 id="{escape(name)}">{escape(name)}</h3>'
        yield f"<p>{escape(schema.get('description', ''))}</p>"
        if "enum" in schema:
            yield f"<p>{_type(schema)}</p>"
        yield "<table>"
        for field, about in schema.get("properties", {}).items():
            needed = " (required)" if field in schema.get("required", []) else ""
            described = escape(about.get("description", ""))
            yield f"<tr><td><code>{escape(field)}</code>{needed}</td>"
            yield f"<td>{_type(about)}</td><td>{described}</td></tr>"
        yield "</table>"


def _type(schema: dict[str, Any]) -> str:
    """Say a schema in a few words: a name with a link, a union, a list, an enumeration."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "enum" in schema:
        return " | ".join(f"<code>{escape(json.dumps(each))}</code>" for each in schema["enum"])
    if "anyOf" in schema:
        return " | ".join(_type(each) for each in schema["anyOf"])
    if schema.get("type") == "array":
        items = _type(schema.get("items", {}))
        return f"list of ({items})" if " | " in items else f"list of {items}"
    return escape(schema.get("type", ""))
