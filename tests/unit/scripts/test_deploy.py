"""Recipes for deployment say nothing that is not so, as far as this machine can tell."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from streamgen_apps.cli import _parser

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "scripts" / "deploy"
UNIT = FOLDER / "streamgen.service"
CONTAINER = FOLDER / "Containerfile"
CLUSTER = FOLDER / "ray-cluster.yaml"


def test_the_unit_is_one(tmp_path: Path):
    """By systemd's own check, with a program where the installed one would be."""
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("systemd-analyze is not installed: apt-get install systemd")
    text = UNIT.read_text().replace("/opt/streamgen/bin/streamgen", sys.executable)
    copy = tmp_path / UNIT.name
    copy.write_text(text.replace("User=streamgen\n", ""))
    run = subprocess.run(
        [verify, "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False
    )
    own = [line for line in run.stderr.splitlines() if UNIT.name in line]
    assert not own


def commands() -> list[str]:
    """Each `streamgen ...` that a recipe or its page tells one to run."""
    unit = re.findall(r"^ExecStart=\S*(streamgen serve.*)$", UNIT.read_text(), re.MULTILINE)
    start, default = (
        " ".join(json.loads(parts))
        for parts in re.findall(r"^(?:ENTRYPOINT|CMD) (\[.*\])$", CONTAINER.read_text(), re.M)
    )
    cluster = re.findall(r"^#\s+(streamgen serve.*)$", CLUSTER.read_text(), re.MULTILINE)
    page = (ROOT / "docs" / "deploy.md").read_text()
    told = re.findall(r"^(streamgen serve[^#\n]*)", page, re.MULTILINE)
    assert unit
    assert cluster
    assert told
    return [*unit, f"{start} {default}", *cluster, *told]


@pytest.mark.parametrize("command", commands())
def test_every_command_is_understood(command: str):
    command = command.replace("$STREAMGEN_OPTIONS", "--preset=tiny-cpu")
    program, *arguments = shlex.split(command)
    assert program == "streamgen"
    _parser().parse_args(arguments)


def test_what_the_container_copies_is_there_and_is_all_that_a_wheel_needs():
    copied = re.findall(r"^COPY (.+) \S+$", CONTAINER.read_text(), re.MULTILINE)
    names = {name for line in copied for name in line.split()}
    assert all((ROOT / name).exists() for name in names)
    assert {"pyproject.toml", "setup.py", "streamgen", "kernels", "apps", "configs"} <= names


def test_extras_that_recipes_install_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    files = [UNIT, CONTAINER, CLUSTER, ROOT / "docs" / "deploy.md", ROOT / "docs" / "api.md"]
    named = {
        extra
        for path in files
        for group in re.findall(r"pip install \"\.\[([a-z,]+)\]\"", path.read_text())
        for extra in group.split(",")
    }
    named |= set(re.findall(r"EXTRAS=(\S+)", CONTAINER.read_text())[0].split(","))
    assert named
    assert named <= set(project["optional-dependencies"])


def test_the_cluster_file_is_what_ray_expects():
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'streamgen[ray]'")
    import yaml
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load(CLUSTER.read_text())
    assert config["min_workers"] == len(config["provider"]["worker_ips"])
    validate_config(prepare_config(config))
