"""What goes over the wire, written out for people and for TypeScript from the models themselves.

`docs/api.md` and the types of the TypeScript client are made from this by
`scripts/write_contract.py`; a test says when they no longer agree with the code.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from streamgen.clock import MonotonicClock
from streamgen.serving.gateway import bodies, messages
from streamgen.serving.gateway.server import Gateway, make_app
from streamgen.serving.host import Host
from streamgen.serving.live import LiveHost

HTTP_MODELS: tuple[type[BaseModel], ...] = (
    bodies.Failure,
    bodies.SessionFacts,
    bodies.SessionChange,
    bodies.HeldSnapshot,
    bodies.Load,
)
COMMANDS: tuple[type[BaseModel], ...] = typing.get_args(messages.Command)
REPORTS: tuple[type[BaseModel], ...] = typing.get_args(messages.Report)
PARTS: tuple[type[BaseModel], ...] = (messages.PresetOffer,)
SIMPLE = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean"}


def typescript() -> str:
    """Types of all messages and bodies, as a module."""
    parts = ["// Made by scripts/write_contract.py from the server's models; do not edit.\n"]
    parts += [_interface(model) for model in (*PARTS, *COMMANDS, *REPORTS, *HTTP_MODELS)]
    for name, models in (("Command", COMMANDS), ("Report", REPORTS)):
        choices = " | ".join(model.__name__ for model in models)
        parts.append(f"export type {name} = {choices};\n")
    states = " | ".join(f'"{state}"' for state in bodies.State)
    parts.append(f"export type State = {states};\n")
    parts.append(f"export const IN_FLIGHT = {messages.IN_FLIGHT};\n")
    return "\n".join(parts)


def messages_markdown() -> str:
    """The messages of the socket, a table each."""
    sections: list[str] = []
    for title, models in (("From a client", COMMANDS), ("From the server", REPORTS)):
        sections.append(f"### {title}\n")
        sections += [_table(model) for model in models]
    sections.append("### Inside messages\n")
    sections += [_table(model) for model in PARTS]
    return "\n".join(sections)


def routes_markdown() -> str:
    """A line for each route, and the models in their bodies."""
    clock = MonotonicClock()
    host = LiveHost({"none": Host}, clock=clock)  # never started: routes are all that is asked for
    app = make_app(Gateway(host, {}, num_places=1, clock=clock))
    lines = ["| route | what it does | answers |", "|---|---|---|"]
    for path, methods in app.openapi()["paths"].items():
        for method, route in methods.items():
            answers = ", ".join(code for code in route["responses"] if code != "422")
            text = " ".join(route.get("description", "").split())
            lines.append(f"| `{method.upper()} {path}` | {text} | {answers} |")
    return "\n".join([*lines, "", *(_table(model) for model in HTTP_MODELS)])


def _table(model: type[BaseModel]) -> str:
    """One model: its name or `type`, what it is for, its fields."""
    kind = model.model_fields.get("type")
    name = f"`{kind.default}`" if kind is not None else f"`{model.__name__}`"
    text = " ".join((model.__doc__ or "").split())
    lines = [f"**{name}** {'' if _is_inherited(model) else text}".rstrip(), ""]
    fields = list(_fields(model))
    if fields:
        lines += ["| field | type | |", "|---|---|---|"]
        lines += [f"| `{field}` | {kind} | {text} |" for field, kind, text in fields]
        lines.append("")
    return "\n".join(lines)


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, str, str]]:
    """Name, type and meaning of each field but `type`."""
    types = _types(model)
    for name, field in model.model_fields.items():
        if name != "type":
            text = field.description or ""
            shown = types[name].replace("|", "or")
            default = "" if field.is_required() else f" May be left out{_default(field)}."
            yield name, shown, f"{text}{default}".strip()


def _default(field: FieldInfo) -> str:
    return "" if field.default is None else f": `{str(field.default).lower()}`"


def _is_inherited(model: type[BaseModel]) -> bool:
    return "__doc__" not in vars(model) or model.__doc__ is None


def _interface(model: type[BaseModel]) -> str:
    lines = [f"export interface {model.__name__} {{"]
    if not _is_inherited(model):
        lines.insert(0, f"/** {' '.join((model.__doc__ or '').split())} */")
    types = _types(model)
    is_sent = model in COMMANDS or model in (bodies.SessionChange,)
    for name, field in model.model_fields.items():
        if field.description:
            lines.append(f"  /** {' '.join(field.description.split())} */")
        mark = "?" if is_sent and name != "type" and not field.is_required() else ""
        lines.append(f"  {name}{mark}: {types[name]};")
    return "\n".join([*lines, "}\n"])


def _types(model: type[BaseModel]) -> dict[str, str]:
    """TypeScript's type of each field."""
    schema = model.model_json_schema()
    return {name: _type(part) for name, part in schema["properties"].items()}


def _type(part: Mapping[str, Any]) -> str:
    if "const" in part:
        return f'"{part["const"]}"'
    if "$ref" in part:
        return str(part["$ref"]).rsplit("/", 1)[-1]
    if "anyOf" in part:
        return " | ".join(_type(choice) for choice in part["anyOf"])
    if part["type"] == "array":
        return f"{_type(part['items'])}[]"
    return "null" if part["type"] == "null" else SIMPLE[part["type"]]
