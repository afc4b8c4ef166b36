"""The OpenAPI document as one page: no script, nothing from elsewhere, readable in the dark."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from importlib import resources
from string import Template
from typing import Any

_WHO = {
    "studentToken": "a signed-in student",
    "apiKey": "an application with the scope students",
    "creditsKey": "an application with the scope credits",
    "cronSecret": "the scheduler",
    "staff": "staff",
    "staffToken": "staff who are signed in",
    "metricsToken": "the monitoring",
    "stripeSignature": "Stripe, by its signature",
    "hubspotSignature": "HubSpot, by its signature",
}


def docs_page(document: dict[str, Any]) -> bytes:
    """The page of this document."""
    by_tag: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            by_tag.setdefault(operation["tags"][0], []).append(_operation(path, method, operation, document))
    template = resources.files("tallybook.api").joinpath("docs_page.html").read_text("utf-8")
    page = Template(template).substitute(
        title=escape(document["info"]["title"]),
        version=escape(document["info"]["version"]),
        summary=escape(document["info"]["summary"]),
        contents="".join(
            f'<li><a href="#{_anchor(tag)}">{escape(tag)}</a></li>' for tag in [*by_tag, "shapes"]
        ),
        sections="".join(
            f'<h2 id="{_anchor(tag)}">{escape(tag)}</h2>{"".join(operations)}'
            for tag, operations in by_tag.items()
        ),
        shapes="".join(
            _shape(name, schema) for name, schema in sorted(document["components"]["schemas"].items())
        ),
    )
    return page.encode()


def _operation(path: str, method: str, operation: dict[str, Any], document: dict[str, Any]) -> str:
    callers = [_WHO[name] for option in operation["security"] for name in option]
    parts = [f'<p class="quiet">For {escape(" or ".join(callers) or "everybody")}.</p>']
    parameters = [_resolve(parameter, document) for parameter in operation["parameters"]]
    parts.append(
        _table(
            "Takes",
            ("Name", "In", "Type", "Meaning"),
            [
                (
                    f"<code>{escape(parameter['name'])}</code>{' *' if parameter.get('required') else ''}",
                    escape(parameter["in"]),
                    _type(parameter["schema"]),
                    escape(parameter.get("description", "")),
                )
                for parameter in parameters
            ],
        )
    )
    if "requestBody" in operation:
        body = operation["requestBody"]["content"]["application/json"]["schema"]
        parts.append(f"<p>Body: {_type(body)}</p>")
    rows = []
    for status, answer in operation["responses"].items():
        (content,) = answer["content"].values()
        data = content["schema"].get("properties", {}).get("data")
        shape = _type(data) if data and status.startswith("2") else ""
        rows.append((f"<code>{status}</code>", escape(answer["description"]), shape))
    parts.append(_table("Answers", ("Status", "Meaning or codes", "data"), rows))
    return (
        f'<details><summary><span class="method">{method.upper()}</span> '
        f'<span class="path">{escape(path)}</span> &mdash; {escape(operation["summary"])}</summary>'
        f"<div>{''.join(parts)}</div></details>"
    )


def _shape(name: str, schema: dict[str, Any]) -> str:
    required = schema.get("required", ())
    rows = [
        (
            f"<code>{escape(field)}</code>{' *' if field in required else ''}",
            _type(given),
            escape(_text(given)),
        )
        for field, given in schema.get("properties", {}).items()
    ]
    table = _table("Fields", ("Name", "Type", "Meaning"), rows)
    return (
        f'<details id="shape-{escape(name)}"><summary class="path">{escape(name)}</summary>'
        f"<div><p>{escape(schema.get('description', ''))}</p>{table}</div></details>"
    )


def _table(caption: str, heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    table = f"<caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="wide"><table>{table}</table></div>'


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#shape-{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(option) for option in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    if "const" in schema:
        return f"<code>{escape(str(schema['const']))}</code>"
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return escape(schema.get("format") or schema.get("type", "anything"))


def _text(schema: dict[str, Any]) -> str:
    texts = [schema.get("description", "")] + [
        option.get("description", "") for option in schema.get("anyOf", ())
    ]
    return next((text for text in texts if text), "")


def _resolve(given: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in given:
        return given
    found = document
    for part in given["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return found


def _anchor(tag: str) -> str:
    return tag.replace(" ", "-")
