"""What a wheel holds: built from a copy of the sources, offline, and unpacked."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("streamgen", "kernels", "apps", "configs")
FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "constraints.txt")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which the wheel of this tree was unpacked."""
    source, wheels, target = (tmp_path_factory.mktemp(name) for name in ("src", "whl", "site"))
    for folder in filter(lambda name: (ROOT / name).is_dir(), SOURCES):
        shutil.copytree(
            ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    for file in FILES:
        shutil.copy(ROOT / file, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, "--no-build-isolation", "-w", wheels, source], check=True)
    (wheel,) = wheels.glob("streamgen-*.whl")
    zipfile.ZipFile(wheel).extractall(target)
    return target


def test_an_installed_wheel_finds_every_preset_by_name(unpacked: Path):
    program = (
        "from streamgen.config.load import list_presets; print([p.name for p in list_presets()])"
    )
    shown = subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            f"import sys; sys.path.insert(0, {str(unpacked)!r}); {program}",
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=unpacked,
    )
    names = sorted(path.stem for path in (ROOT / "configs").glob("*.toml"))
    assert shown.stdout.strip() == str(names)


def test_a_wheel_holds_every_module_and_nothing_else(unpacked: Path):
    tops = {path.name for path in unpacked.iterdir() if not path.name.endswith(".dist-info")}
    assert {"streamgen"} <= tops <= {"streamgen", "streamgen_kernels", "streamgen_apps"}
    for base, package in (
        (ROOT, "streamgen"),
        (ROOT / "kernels", "streamgen_kernels"),
        (ROOT / "apps", "streamgen_apps"),
    ):
        written = {path.relative_to(base) for path in (base / package).rglob("*.py")}
        packed = {path.relative_to(unpacked) for path in (unpacked / package).rglob("*.py")}
        assert packed == written


def test_a_wheel_holds_the_weights_of_the_tiny_model(unpacked: Path):
    folder = Path("streamgen/models/tiny/weights")
    written = {path.name for path in (ROOT / folder).glob("*") if path.is_file()}
    packed = {path.name for path in (unpacked / folder).glob("*")}
    assert packed == written


def test_a_wheel_holds_the_page_of_the_webcam_command(unpacked: Path):
    written = {path.name for path in (ROOT / "apps/streamgen_apps/page").iterdir()}
    packed = {path.name for path in (unpacked / "streamgen_apps/page").iterdir()}
    assert packed == written >= {"main.js", "stage.css", "stage.html"}
