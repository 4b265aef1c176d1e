"""What a GPU report has found so far: written after every part, so that a kill keeps what is done.

Every part has a budget of its own; what does not fit into the time that is left is named, with the
time that it would have taken.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamgen.clock import Clock

RESERVE_S = 10.0  # for writing, and for what cannot be cut off at once
Found = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of the report."""

    group: str
    """What `--parts` calls it."""
    name: str
    budget_s: float
    """It begins only if so much is left, and is cut off after it."""
    run: Callable[[float], Found]
    """Gets the second of the clock at which to stop; a result that was cut says so."""


@dataclass
class Report:
    """Runs parts in the order of their importance."""

    out: Path
    """Without ending."""
    clock: Clock
    ends_s: float
    found: Found = field(default_factory=dict)

    def run(self, parts: Sequence[Part]) -> None:
        for part in parts:
            self._run(part)
            self.write()

    def write(self) -> None:
        """Both files, whole: each appears complete or stays as it was."""
        self.out.parent.mkdir(parents=True, exist_ok=True)
        for ending, text in (
            (".json", json.dumps(self.found, indent=1) + "\n"), (".md", markdown(self.found))
        ):  # fmt: skip
            path = self.out.with_name(self.out.name + ending)
            partial = path.with_name(path.name + ".partial")
            partial.write_text(text, encoding="utf-8")
            partial.replace(path)

    def _run(self, part: Part) -> None:
        began_s = self.clock.now()
        left_s = self.ends_s - RESERVE_S - began_s
        if left_s < part.budget_s:
            told = f"{max(left_s, 0):.0f} s were left, it takes up to {part.budget_s:g}"
            self.found[part.name] = {"left_out": told}
        else:
            try:
                self.found[part.name] = part.run(began_s + part.budget_s)
            except Exception as error:  # a part that fails is a finding
                self.found[part.name] = {"failed": f"{type(error).__name__}: {error}"[:500]}
            self.found[part.name]["took_s"] = round(self.clock.now() - began_s, 1)
        self.found[part.name]["group"] = part.group
        print(f"{part.name}: {json.dumps(self.found[part.name])[:300]}", flush=True)


def markdown(found: Mapping[str, Any]) -> str:
    """Tables of streams, of what their time goes into, of kernels and of attentions."""
    machine, peaks = found["machine"], found["peaks"]
    lines = [
        f"# {machine['device']}, commit {machine['commit'] or 'unknown'}, {machine['date']}", "",
        *(["A rehearsal on tiny sizes: the figures mean nothing.", ""] * found["rehearsal"]),
        f"torch {machine['torch']}, Triton {machine['triton']}; measured peaks: "
        f"{peaks['tflops']:.4g} TFLOP/s, {peaks['gb_per_s']:.4g} GB/s. Random weights; settings of "
        f"each stream are in the JSON file.", "",
        *_streams(found), *_spending(found), *_kernels(found), *_attentions(found),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _parts(found: Mapping[str, Any], group: str | None = None) -> dict[str, Found]:
    parts = {name: one for name, one in found.items() if isinstance(one, dict) and "group" in one}
    return {name: one for name, one in parts.items() if group in (None, one["group"])}


def _streams(found: Mapping[str, Any]) -> list[str]:
    lines = [
        "| stream | frames/s | chunk p50 / p99 ms | first frame cold / warm s | limit frames/s "
        "| share | GB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, one in _parts(found).items():
        if "frames_per_second" in one:
            was_cut = f" ({one['cut_off']})" if "cut_off" in one else ""
            lines.append(
                f"| {name}{was_cut} | {one['frames_per_second']:.1f} | {one['chunk_ms']:.1f} / "
                f"{one['chunk_p99_ms']:.1f} | {one['first_frame_cold_s']:.2f} / "
                f"{one['first_frame_warm_s']:.3f} | {one['limit_frames_per_second']:.0f} | "
                f"{one['fraction_of_limit']:.2f} | {one['peak_memory_gb']:.1f} |"
            )
        elif "left_out" in one or "failed" in one:
            lines.append(f"| {name} | {one.get('left_out') or one['failed']} | | | | | |")
    return [*lines, ""]


def _spending(found: Mapping[str, Any]) -> list[str]:
    streams = {name: one for name, one in _parts(found).items() if "spent_ms_a_chunk" in one}
    if not streams:
        return []
    spendings = [one["spent_ms_a_chunk"] for one in streams.values()]
    kinds = list(dict.fromkeys(kind for spent in spendings for kind in spent))
    lines = [f"| ms a chunk | {' | '.join(kinds)} |", "|---|" + "---|" * len(kinds)]
    for name, spent in zip(streams, spendings, strict=True):
        lines.append(f"| {name} | {' | '.join(f'{spent.get(kind, 0):.3g}' for kind in kinds)} |")
    return [*lines, ""]


def _kernels(found: Mapping[str, Any]) -> list[str]:
    rows = [
        f"| {name} | {one['definition_ms']:.4f} | {one['kernel_ms']:.4f} | {one['gain']:.2f} | "
        f"{one['gb_per_s']:.0f} | {one['relative_error']:.1e} |"
        for name, one in found.get("kernels", {}).items()
        if isinstance(one, dict)
    ]
    head = ["| kernel | definition ms | kernel ms | gain | GB/s | error |", "|---|" + "---|" * 5]
    return [*head, *rows] if rows else []


def _attentions(found: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    for name, one in _parts(found, "attention").items():
        lines += ["", f"| {name} | ms | TFLOP/s |", "|---|---|---|"]
        for who, what in one.get("table", {}).items():
            if isinstance(what, dict):
                lines.append(f"| {who} | {what['ms']:.4f} | {what['tflops']:.0f} |")
            else:
                lines.append(f"| {who} | {str(what).replace('|', '/')} | |")
    return lines
