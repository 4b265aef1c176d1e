"""`streamgen doctor`: what it finds here, and what it says where things are missing or broken."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from streamgen.serving import doctor
from streamgen_apps.cli import main


def found(name: str) -> doctor.Finding:
    return next(finding for finding in doctor.examine() if finding.name == name)


def test_it_lists_what_is_here_and_ends_well(capsys: pytest.CaptureFixture[str]):
    assert main(["doctor"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for words in (
        "devices\n",
        "  ok       torch ",
        "attention\n",
        "libx264",
        "cameras\n",
        "ffmpeg",
        "latency model (tiny-cpu-v2v)\n",
        " ms a latent frame and step, error ",
    ):
        assert words in out


def test_a_program_can_read_it(capsys: pytest.CaptureFixture[str]):
    assert main(["doctor", "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert {"area", "name", "is_there", "told", "remedy", "is_vital"} == set(findings[0])
    names = [finding["name"] for finding in findings]
    assert len(names) == len(set(names))
    by_name = dict(zip(names, findings, strict=True))
    assert by_name["torch"]["is_there"]
    assert by_name["libx264"]["is_there"]


def test_what_is_missing_comes_with_one_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    monkeypatch.setattr(doctor, "LINUX_MODULES", tmp_path)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(sys, "platform", "linux")
    for name in (*doctor.PACKAGES, "ffmpeg", "ffplay", "v4l2loopback", "xformers"):
        finding = found(name)
        assert not finding.is_there
        assert finding.remedy is not None
        assert finding.remedy.startswith(("pip install ", "sudo "))
        assert "\n" not in finding.remedy


def test_what_can_only_be_read_does_not_count_as_an_encoder_or_an_output(
    monkeypatch: pytest.MonkeyPatch,
):
    """PyAV lists the names of decoders and inputs among the others."""
    monkeypatch.setattr(doctor, "ENCODERS", {"cook": "a decoder", "libx264": "films"})
    monkeypatch.setattr(doctor, "MUXERS", {"bink": "an input", "flv": "rtmp"})
    assert [found(name).is_there for name in ("cook", "libx264", "bink", "flv")] == [0, 1, 0, 1]
    assert found("cook").remedy is not None


def test_the_camera_of_obs_is_looked_for_on_other_systems(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(doctor, "MAC_OBS", tmp_path / "OBS.app")
    assert not found("OBS").is_there
    (tmp_path / "OBS.app").mkdir()
    assert found("OBS").is_there


def test_the_protocols_of_the_ffmpeg_program_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\necho 'Input:'; echo '  https'; echo '  rtmp'\n")
    program.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(program))
    assert found("rtmp").is_there
    assert not found("srt").is_there


def test_a_check_that_breaks_is_a_finding_and_hides_nothing(monkeypatch: pytest.MonkeyPatch):
    def broken(program: str) -> set[str]:
        raise subprocess.TimeoutExpired(program, 20.0)

    monkeypatch.setattr(shutil, "which", lambda name: "/bin/ffmpeg")
    monkeypatch.setattr(doctor, "_protocols", broken)
    findings = doctor.examine()
    (failed,) = [finding for finding in findings if finding.name == "check"]
    assert failed.area == "program"
    assert failed.told.startswith("failed: Command '/bin/ffmpeg' timed out")
    assert {"torch", "mss"} <= {finding.name for finding in findings}


def test_without_torch_it_says_so_in_one_line_with_exit_code_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    missing = doctor.Finding("devices", "torch", False, "-", "pip install torch", is_vital=True)
    monkeypatch.setattr(doctor, "_torch", lambda: iter([missing]))
    assert main(["doctor"]) == 3
    assert capsys.readouterr().err == "streamgen: torch is missing; run: pip install torch\n"


def test_every_package_that_it_names_is_declared():
    declared = (Path(__file__).resolve().parents[3] / "pyproject.toml").read_text()
    for _, remedy in doctor.PACKAGES.values():
        for requirement in remedy.split('"')[1::2]:
            assert f'"{requirement}"' in declared, requirement


def test_a_plan_for_several_gpus_is_printed_or_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Best first; what describes hardware means nothing without a number of GPUs."""
    assert main(["doctor", "--gpus", "4", "--steps", "1", "--json"]) == 0
    ways = json.loads(capsys.readouterr().out)["divisions"]
    assert [one["split"] for one in ways] == ["layers"] * 3
    assert ways[0]["fps"] == max(one["fps"] for one in ways)
    assert main(["doctor", "--speeds", "1,1"]) == 2
    assert "--speeds is for a plan" in capsys.readouterr().err
    assert main(["doctor", "--gpus", "2", "--size", "big"]) == 2
    assert "--size 480x832" in capsys.readouterr().err
