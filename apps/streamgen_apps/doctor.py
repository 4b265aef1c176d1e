"""`streamgen doctor`: what this machine has, what is missing, and the command that mends it."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from itertools import groupby

from streamgen.serving.doctor import check_vital, examine, measure
from streamgen.serving.planning import divisions, plan_lines
from streamgen_apps.plan_options import plan_options


def doctor(*, as_json: bool) -> int:
    """Print what was found; returns the exit code, StreamGenError if nothing can work."""
    findings = [*examine(), *measure()]
    if as_json:
        print(json.dumps({"findings": [asdict(finding) for finding in findings]}, indent=2))
        check_vital(findings)
        return 0
    for area, group in groupby(findings, key=lambda finding: finding.area):
        print(area)
        for finding in group:
            mark = "ok     " if finding.is_there else "missing"
            print(f"  {mark}  {finding.name:<14} {finding.told}")
            if finding.remedy is not None:
                print(f"  {'':<24} -> {finding.remedy}")
    check_vital(findings)
    return 0


def divide(options: argparse.Namespace) -> int:
    """Print how a model can be divided among GPUs, best first."""
    wanted = plan_options(options)
    if options.json:
        _, found = divisions(wanted)
        print(json.dumps({"divisions": [asdict(one) for one in found]}, indent=2))
        return 0
    for line in plan_lines(wanted):
        print(line)
    return 0
