"""`streamgen models`, as a person uses it: list, download from a hub, check files."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from streamgen.config.load import list_presets
from streamgen_apps.cli import main
from tests.hub_server import COMMIT, HubServer
from tests.small_wan import SmallWan, write_diffusers, write_published

ROOT = Path(__file__).resolve().parents[3]
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "spiece.model")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> SmallWan:
    return write_published(tmp_path_factory.mktemp("published"))


def run(home: Path, server: HubServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own: the hub's address is read when its library loads."""
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("HF_")},
        "HF_ENDPOINT": server.address,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in (".", "apps", "kernels")),
    }
    command = [sys.executable, "-m", "streamgen_apps.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def hub_files(weights: bytes) -> dict[str, bytes]:
    wan = "Wan-AI/Wan2.1-T2V-1.3B"
    return {
        "gdhe17/Self-Forcing/checkpoints/self_forcing_dmd.pt": weights,
        f"{wan}/Wan2.1_VAE.pth": b"vae",
        f"{wan}/models_t5_umt5-xxl-enc-bf16.pth": b"text",
        **{f"{wan}/google/umt5-xxl/{name}": b"{}" for name in TOKENIZER},
    }


def test_a_preset_is_downloaded_resumed_hashed_and_recorded(tmp_path: Path) -> None:
    """The connection breaks in the midst of the weights; what had come is not fetched again."""
    weights = bytes(range(256)) * 2**16  # 16 MB; the library writes 10 MB at a time
    with HubServer(hub_files(weights), hang_up_at=12_000_000) as server:
        done = run(tmp_path, server, "models", "download", "self-forcing-1.3b")
        assert done.returncode == 0, done.stderr
        assert server.ranges
        assert server.ranges[0].startswith("bytes=")
        assert server.ranges[0] != "bytes=0-"
        again = run(tmp_path, server, "models", "download", "self-forcing-1.3b")
    digest = hashlib.sha256(weights).hexdigest()
    assert f"{len(weights)} bytes  sha256 {digest}" in done.stdout
    assert again.stdout == done.stdout
    assert "licence: CC BY-NC-SA 4.0" in done.stderr
    records = json.loads((tmp_path / "streamgen-downloads.json").read_text(encoding="utf-8"))
    assert {record["revision"] for record in records} == {COMMIT}
    assert digest in {record["sha256"] for record in records}
    assert len(records) == 7


def test_a_file_that_the_hub_does_not_have_is_named(tmp_path: Path) -> None:
    files = hub_files(b"weights")
    del files["Wan-AI/Wan2.1-T2V-1.3B/Wan2.1_VAE.pth"]
    with HubServer(files) as server:
        failed = run(tmp_path, server, "models", "download", "self-forcing-1.3b")
    assert failed.returncode == 3
    last = failed.stderr.strip().splitlines()[-1]
    assert "Wan2.1_VAE.pth: the repository has no such file" in last
    assert "Traceback" not in failed.stderr


def test_the_list_names_every_recipe_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list"]) == 0
    shown = capsys.readouterr().out
    for info in list_presets():
        lines = [line for line in shown.splitlines() if line.startswith(f"{info.name} ")]
        assert len(lines) == (info.family == "wan")
        assert all(" GB " in line for line in lines)


@pytest.mark.parametrize("part", ["dit", "vae", "taehv", "text"])
def test_each_published_part_is_recognised_and_loads(
    published: SmallWan, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = getattr(published, part)
    names = {
        "dit": "Wan diffusion transformer",
        "vae": "Wan VAE",
        "taehv": "tiny autoencoder (TAEHV)",
        "text": "UMT5 text encoder",
    }
    assert main(["models", "check", str(path)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"{path}: {names[part]}; it loads\n")
    if part == "dit":
        assert "generator_ema is taken; also there: generator" in shown


def test_a_folder_of_a_whole_model_is_checked_in_all_its_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_diffusers(tmp_path)
    assert main(["models", "check", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert [word in shown for word in ("transformer;", "VAE;", "encoder;")] == [True] * 3


def test_a_lora_is_recognised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stem = "diffusion_model.blocks.1.self_attn.q"
    file = tmp_path / "style.safetensors"
    factors = {"lora_down": torch.ones(4, 8), "lora_up": torch.ones(8, 4)}
    save_file({f"{stem}.{role}.weight": one for role, one in factors.items()}, file)
    assert main(["models", "check", str(file)]) == 0
    assert "LoRA; it loads\n  changes 1 weights of 1 blocks" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[: len(data) // 2], "truncated"),
        (lambda data: b"", "is empty"),
        (lambda data: b"<!doctype html><html>", "is a web page"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(
    tmp_path: Path, published: SmallWan, capsys: pytest.CaptureFixture[str], damage, words: str
) -> None:
    file = tmp_path / "model.pt"
    file.write_bytes(damage(published.dit.read_bytes()))
    assert main(["models", "check", str(file)]) == 3
    shown = capsys.readouterr().err
    assert words in shown
    assert shown.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["download", "self-forcng-1.3b"], 2, "did you mean 'self-forcing-1.3b'"),
        (["check", "/nowhere/model.pt"], 3, "no such file or folder"),
        (["check", "hub:only-an-owner"], 2, "write hub:OWNER/NAME/FILE"),
        (["check"], 2, "PATH"),
        ([], 2, "WHAT"),
    ],
)
def test_mistakes_are_told_in_one_line(
    arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", *arguments]) == code
    shown = capsys.readouterr().err
    assert words in shown
    assert shown.count("\n") == 1


def test_a_preset_without_files_needs_no_download(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "download", "tiny-cpu"]) == 0
    assert "needs no download" in capsys.readouterr().out
