"""Metrics of several replicas as one text, each line with the name of its replica. Pure.

Prometheus' text format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Mapping

LABEL = "replica"


def merged(texts: Mapping[str, str]) -> str:
    """`texts` by the name of the replica; a metric's lines are together, under its one head."""
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for replica, text in texts.items():
        metric = ""
        for line in text.splitlines():
            if line.startswith(("# HELP ", "# TYPE ")):
                metric = line.split(" ", 3)[2]
                head = heads.setdefault(metric, [])
                if line.split(" ", 3)[:3] not in [known.split(" ", 3)[:3] for known in head]:
                    head.append(line)
            elif line:
                samples.setdefault(metric, []).append(_labelled(line, replica))
    lines = [
        line for metric, values in samples.items() for line in [*heads.get(metric, []), *values]
    ]
    return "".join(f"{line}\n" for line in lines)


def _labelled(line: str, replica: str) -> str:
    """A sample with one more label; a name has neither a brace nor a space."""
    label = f'{LABEL}="{replica}"'
    brace, space = line.find("{"), line.find(" ")
    if 0 <= brace < space:
        rest = line[brace + 1 :]
        comma = "" if rest.startswith("}") else ","
        return f"{line[: brace + 1]}{label}{comma}{rest}"
    return f"{line[:space]}{{{label}}}{line[space:]}"
