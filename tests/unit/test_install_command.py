"""What an error says to install is right in a clone and far from one."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest

from streamgen.errors import install_command

ROOT = Path(__file__).parents[2]
LISTED = [
    "torch>=2.8",
    'gradio<7,>=6.10; extra == "gradio"',
    'streamgen[gradio]; extra == "webcam"',
    'aiortc>=1.14; extra == "webcam"',
    'gradio<7,>=6.10; extra == "webcam"',
    'torchao>=0.15; sys_platform == "linux" and extra == "quant"',
    "ray[serve]>=2.53; extra == 'ray'",
]


@pytest.mark.parametrize(
    ("extra", "command"),
    [
        ("gradio", 'pip install "gradio<7,>=6.10"'),
        ("webcam", 'pip install "gradio<7,>=6.10" "aiortc>=1.14"'),
        ("quant", 'pip install "torchao>=0.15"'),
        ("ray", 'pip install "ray[serve]>=2.53"'),
        ("unknown", 'pip install ".[unknown]"'),
    ],
)
def test_the_packages_of_an_extra_are_named(
    monkeypatch: pytest.MonkeyPatch, extra: str, command: str
) -> None:
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: LISTED)
    assert install_command(extra) == command


def test_a_clone_that_is_not_installed_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", requires)
    assert install_command("webcam") == 'pip install ".[webcam]"'


def test_every_remedy_names_an_extra_that_there_is_and_no_name_of_an_index() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = set(settings["project"]["optional-dependencies"])
    named: set[str] = set()
    for folder in ("streamgen", "apps"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            named |= set(re.findall(r"""install_command\(['"](\w+)['"]\)""", text))
            assert not re.search(r"pip install ['\"]streamgen", text), path
    assert len(named) >= 6
    assert named <= extras
