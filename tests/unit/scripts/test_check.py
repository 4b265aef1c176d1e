"""What CI runs: file sizes, wheel-worthy folders, and the README's command itself."""

import subprocess
from pathlib import Path

import check

ROOT = Path(__file__).resolve().parents[3]


def test_a_file_of_401_lines_is_named_and_one_of_400_is_not(tmp_path: Path):
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "long.py").write_text("x = 1\n" * 401)
    (tmp_path / "scripts" / "full.py").write_text("x = 1\n" * 400)
    assert check.file_faults(tmp_path) == ["scripts/long.py: 401 lines, at most 400; split it"]


def test_a_folder_that_a_wheel_would_leave_out_is_named(tmp_path: Path):
    inner = tmp_path / "apps" / "streamgen_apps" / "web"
    inner.mkdir(parents=True)
    (inner / "page.py").write_text("")
    assert check.file_faults(tmp_path) == [
        "apps/streamgen_apps/web: no __init__.py, so the wheel would leave it out; add one"
    ]


def test_fast_leaves_out_the_tests_only():
    everything = [step.name for step in check.steps(with_tests=True)]
    assert [step.name for step in check.steps(with_tests=False)] == everything[:-1]
    assert everything[-1] == "tests"


def test_ci_runs_the_command_of_the_readme():
    shown = subprocess.run(
        [ROOT / ".ci" / "run", "--show"], capture_output=True, text=True, check=True
    )
    command = shown.stdout.strip()
    assert command.endswith("&& .venv/bin/python scripts/check.py --install")
    assert f"\n```bash\n{command}\n```\n" in (ROOT / "README.md").read_text()
