"""Copies configs/ into the wheel as streamgen/presets; everything else is in pyproject.toml."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class BuildWithPresets(build_py):
    """An editable install needs no copy: presets are found in configs/ beside the package."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        shutil.rmtree(self._preset_folder(), ignore_errors=True)  # none of an earlier build stays
        self._preset_folder().mkdir(parents=True)
        for preset in _presets():
            shutil.copy(preset, self._preset_folder())

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        copies = [str(self._preset_folder() / preset.name) for preset in _presets()]
        return super().get_outputs(include_bytecode) + copies

    def get_source_files(self) -> list[str]:
        sources = [str(preset.relative_to(ROOT)) for preset in _presets()]
        return super().get_source_files() + sources

    def _preset_folder(self) -> Path:
        return Path(self.build_lib) / "streamgen" / "presets"


def _presets() -> list[Path]:
    return sorted((ROOT / "configs").glob("*.toml"))


setup(cmdclass={"build_py": BuildWithPresets})
