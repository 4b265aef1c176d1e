"""Every damaged, hostile or wrong file ends in one line that names it and says what to do."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import binary, floats, integers
from safetensors.torch import save_file

from streamgen.errors import CheckpointError
from streamgen.models.loading import describe, load_dit
from tests.checkpoint_files import LAYOUTS, State, random_weights, write_shards, write_torch


@pytest.fixture(scope="module")
def state() -> State:
    return random_weights(0)


class Hostile:
    """Runs a program when it is unpickled."""

    def __init__(self, touched: Path) -> None:
        self._touched = touched

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self._touched),)


def load(path: Path) -> None:
    load_dit(path, device=torch.device("cpu"), dtype=torch.float32)


def refusal(path: Path) -> str:
    """The message; it is one line and starts with the file or the folder."""
    with pytest.raises(CheckpointError) as raised:
        load(path)
    message = str(raised.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert ";" in message or ":" in message.removeprefix(str(path))
    return message


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"GGUF\x03\x00\x00\x00", "is a GGUF file"),
        (b"\x80\x02}q\x00.", "bare pickle"),
        (b"\x00" * 64, "not a readable safetensors file"),
        (b"\xff" * 64, "not a readable safetensors file"),
        (b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ", "holds no tensors"),
        (b"some text that somebody renamed", "not a readable safetensors file"),
    ],
)
def test_files_that_are_no_weights(head: bytes, expected: str, tmp_path: Path) -> None:
    for name in ("model.safetensors", "model.pt"):
        path = tmp_path / name
        path.write_bytes(head)
        assert expected in refusal(path)


@pytest.mark.parametrize("layout", ["Krea", "LongLive"])
@given(kept=floats(0.0, 0.999))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_cut_anywhere_is_refused_before_it_is_read(
    layout: str, kept: float, tmp_path: Path, state: State
) -> None:
    small = {name: tensor for name, tensor in state.items() if tensor.numel() < 5_000}
    whole = LAYOUTS[layout](tmp_path, small)
    content = whole.read_bytes()
    cut = tmp_path / f"cut{whole.suffix}"
    cut.write_bytes(content[: int(len(content) * kept)])
    message = refusal(cut)
    assert "truncated" in message or "damaged" in message or "empty" in message


@given(place=integers(0, 4_000), noise=binary(min_size=1, max_size=16))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_overwritten_bytes_never_raise_anything_else(
    place: int, noise: bytes, tmp_path: Path
) -> None:
    """A pickle, a zip directory or a header that is damaged may still be readable; no more."""
    whole = {"generator": {f"model.blocks.{i}.x": torch.ones(2) for i in range(20)}}
    path = write_torch(tmp_path / "model.pt", whole)
    content = bytearray(path.read_bytes())
    content[place : place + len(noise)] = noise
    path.write_bytes(content)
    try:
        describe(path)
    except CheckpointError as error:
        assert "\n" not in str(error)  # noqa: PT017  it may also succeed


def test_pickled_code_is_named_and_does_not_run(tmp_path: Path, state: State) -> None:
    touched = tmp_path / "touched"
    path = write_torch(tmp_path / "model.pt", {"generator": state, "epoch": Hostile(touched)})
    assert "Python objects (posix.mkdir)" in refusal(path)
    assert not touched.exists()
    bare = tmp_path / "bare.pt"
    bare.write_bytes(pickle.dumps(Hostile(touched), protocol=2))
    assert "bare pickle" in refusal(bare)
    assert not touched.exists()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([torch.zeros(2)], "holds a list, not a state dict"),
        (torch.zeros(2), "holds a Tensor, not a state dict"),
        ({}, "holds an empty dict"),
        ({"a": torch.zeros(2), "epoch": 3}, "epoch is a int, not a tensor"),
        ({"a": None}, "a is a NoneType, not a tensor"),
        ({3: torch.zeros(2)}, "the key 3 is not a parameter's name"),
        ({"a\n\x1b[2J": torch.zeros(2)}, r"the key 'a\n\x1b[2J' is not a parameter's name"),
        ({"generator": {"a": torch.zeros(2), "b": "text"}}, "b is a str, not a tensor"),
        ({"a": torch.zeros(2, 2).to_sparse()}, "a is not a dense tensor (torch.sparse_coo)"),
        ({"a": torch.zeros(1).expand(1 << 40)}, "more than what is stored of it"),
    ],
)
def test_contents_that_are_no_weights(content: object, expected: str, tmp_path: Path) -> None:
    assert expected in refusal(write_torch(tmp_path / "model.pt", content))


def test_a_file_that_contains_itself_ends(tmp_path: Path) -> None:
    content: dict[str, object] = {}
    content["model"] = content
    assert "model is a dict, not a tensor" in refusal(write_torch(tmp_path / "model.pt", content))


def test_a_torch_file_under_the_name_of_the_other_format_says_so(tmp_path: Path) -> None:
    path = write_torch(tmp_path / "model.safetensors", {"a": torch.zeros(2)})
    assert "rename it to .pt" in refusal(path)


def test_another_zip_is_no_torch_file(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no weights")
    assert "damaged or not a torch file" in refusal(path)


def test_archives_that_would_grow_while_they_are_read_are_refused(tmp_path: Path) -> None:
    """A small file may hold gigabytes of zeros, or a structure of nothing but empty lists."""
    honest = write_torch(tmp_path / "honest.pt", {"a": torch.zeros(2)})
    for name, kind, expected in (
        ("zeros.pt", zipfile.ZIP_DEFLATED, "is a compressed archive, which torch never writes"),
        ("lists.pt", zipfile.ZIP_STORED, "describes its tensors in"),
    ):
        with zipfile.ZipFile(honest) as source, zipfile.ZipFile(tmp_path / name, "w") as bomb:
            for entry in source.namelist():
                is_structure = entry.endswith("data.pkl")
                content = b"\x80\x02" + b"]" * 2**25 if is_structure else source.read(entry)
                bomb.writestr(entry, content, compress_type=kind)
        assert expected in refusal(tmp_path / name)


def test_torch_files_of_the_old_format_say_how_to_convert(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"a": torch.zeros(2)}, path, _use_new_zipfile_serialization=False)
    assert "re-save it" in refusal(path)


def test_numbers_that_are_not_finite_name_their_key(tmp_path: Path, state: State) -> None:
    for value in (torch.nan, torch.inf):
        broken = state["blocks.1.ffn.2.weight"].clone()
        broken[3, 4] = value
        path = write_torch(tmp_path / "model.pt", state | {"blocks.1.ffn.2.weight": broken})
        assert "blocks.1.ffn.2.weight holds NaN or infinity" in refusal(path)


def test_what_a_file_says_reaches_no_terminal_unescaped(tmp_path: Path) -> None:
    """Keys and shard names come from strangers: newlines and escape sequences stay out."""
    path = tmp_path / "model.safetensors"
    save_file({"a\x1b[2J": torch.zeros(2)}, path)
    assert r"'a\x1b[2J'" in refusal(path)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "b\n.safetensors"}}), encoding="utf-8")
    assert "outside its own folder" in refusal(index)


def test_shards_must_be_there_and_belong_together(tmp_path: Path, state: State) -> None:
    folder = write_shards(tmp_path / "shards", state)
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    second = folder / "diffusion_pytorch_model-00002-of-00002.safetensors"
    assert "is shard 2 of 2: give the folder" in refusal(second)
    content = second.read_bytes()
    second.write_bytes(content[:-100])
    assert "00002-of-00002.safetensors: is truncated" in refusal(folder)
    second.unlink()
    assert "00002-of-00002.safetensors: is missing" in refusal(folder)
    save_file({"other": torch.zeros(2)}, second)
    assert "shards of different models are mixed" in refusal(folder)
    for damaged in ("", "{", "[]", '{"weight_map": 3}', '{"weight_map": {"a": 3}}'):
        index.write_text(damaged, encoding="utf-8")
        assert "is not an index of shards" in refusal(index)
    index.write_text('{"weight_map": {}}', encoding="utf-8")
    assert "names no tensors" in refusal(index)
    outside = json.dumps({"weight_map": {"a": "../other.safetensors"}})
    index.write_text(outside, encoding="utf-8")
    assert "outside its own folder" in refusal(index)


def test_folders_that_do_not_say_which_file(tmp_path: Path, state: State) -> None:
    assert "there is no such file" in refusal(tmp_path / "absent.pt")
    assert "holds no weights" in refusal(tmp_path)
    for name in ("a.pt", "b.pt"):
        write_torch(tmp_path / name, state)
    assert "holds 2 files that may be meant (a.pt, b.pt)" in refusal(tmp_path)
    save_file(state, tmp_path / "c.safetensors")
    load(tmp_path)
