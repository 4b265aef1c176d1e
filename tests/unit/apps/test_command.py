"""The `streamgen` command in this process: what it makes, and what it says of each mistake."""

from __future__ import annotations

import logging
import os
import resource
import wave
from collections.abc import Iterator
from pathlib import Path

import av
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from streamgen.models.tiny.bundle import PACKAGE_WEIGHTS
from streamgen_apps.cli import main
from tests.media_files import grey_ramp, write_video

BALL = "a red ball over a green field"
SMALL = ("--set", "picture.height=64", "--set", "picture.width=64", "--set", "model.num_threads=1")
OLD = b"a film that was there before"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test runs in its own folder, where `old.mp4` must not be harmed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.mp4").write_bytes(OLD)
    return tmp_path


@pytest.fixture(autouse=True)
def root_handlers() -> Iterator[None]:
    """The command configures logging once for its process; here every test is such a process."""
    before = logging.root.handlers[:]
    yield
    logging.root.handlers[:] = before


def run(*arguments: str) -> int:
    return main(["run", *SMALL, *arguments])


def num_frames(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error, nothing being on standard output."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("streamgen: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    assert len(err) < 600
    return err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([""], "the prompt is empty"),
        ([" \t\n"], "the prompt is empty"),
        (["x" * 10_000], "10000 characters, 2000 are allowed"),
        (["xyzzy plugh"], "knows no word of the prompt 'xyzzy plugh'; it draws"),
        (["1234 !?"], "knows no word of the prompt"),
        ([BALL, "--preset", "tiny-cpuu"], "did you mean 'tiny-cpu'?"),
        ([BALL, "--preset", "none.toml"], "cannot read none.toml"),
        ([BALL, "--set", "cache.sink=2"], "did you mean cache.sinks?"),
        ([BALL, "--set", "cache.sinks=two"], "cache.sinks must be integer"),
        ([BALL, "--set", "cache.sinks"], "is not section.key=value"),
        ([BALL, "--set", "picture.width=100"], "take 96x64 or 112x64"),
        ([BALL, "--set", "model.num_threads=-1"], "must be in [0, 1024]"),
        ([BALL, "--seconds", "-1"], "--seconds -1 is no length"),
        ([BALL, "--seconds", "0"], "--seconds 0 is no length"),
        ([BALL, "--seconds", "nan"], "--seconds nan is no length"),
        ([BALL, "--seconds", "inf"], "--seconds inf is no length"),
        ([BALL, "--seconds", "soon"], "invalid float value: 'soon'"),
        ([BALL, "--frames", "0"], "--frames 0 is no length"),
        ([BALL, "--frames", "-4"], "--frames -4 is no length"),
        ([BALL, "--frames", "1.5"], "invalid int value: '1.5'"),
        ([BALL, "--frames", "4", "--seconds", "1"], "not allowed with argument"),
        ([BALL, "--zoom", "0"], "zoom 0 is not in 1 to 16"),
        ([BALL, "--zoom", "1000"], "zoom 1000 is not in 1 to 16"),
        ([BALL, "--seed", "-1"], "seed -1 is not in 0 to"),
        ([BALL, "--seed", str(2**64)], f"seed {2**64} is not in 0 to"),
        ([BALL, "--strength", "0.5"], "--strength needs an input"),
        ([BALL, "--loop"], "--loop needs an input"),
        ([BALL, "--mirror"], "--mirror needs an input"),
        ([BALL, "--realtime"], "--realtime needs an input"),
        ([BALL, "--prompts", "story.txt"], "cannot read story.txt"),
        (["--prompts", "-"], "what to show at 0:00? give a PROMPT"),
        ([BALL, "-i", "webcam:0,size=big"], "size=big is no size"),
        ([BALL, "-i", "webcam:none"], "no camera is called 'none'"),
        ([BALL, "--fit", "crop"], "--fit needs an input"),
        ([BALL, "-i", "synthetic:8", "--strength", "7"], "strength 7 is not in 0 to 1"),
        ([BALL, "-i", "synthetic:8", "--fit", "wide"], "choose from"),
        ([BALL, "-i", "synthetic:8", "--preset", "tiny-cpu"], "takes no input"),
        ([BALL, "--preset", "tiny-cpu-v2v"], "has no input; give -i"),
        ([BALL, "-i", ""], "-i is empty"),
        ([BALL, "-i", "tape:1"], "there is no tape:"),
        ([BALL, "--unheard-of"], "unrecognized arguments: --unheard-of"),
        ([BALL, "--sec", "1"], "unrecognized arguments: --sec"),
        ([], "required: PROMPT; see streamgen run --help"),
    ],
)
def test_a_wrong_request_is_told_in_one_line_with_exit_code_2(
    arguments: list[str], words: str, folder: Path, capsys: pytest.CaptureFixture[str]
):
    assert run("-o", "old.mp4", *arguments) == 2
    assert words in complaint(capsys)
    assert os.listdir(folder) == ["old.mp4"]
    assert (folder / "old.mp4").read_bytes() == OLD


@pytest.mark.parametrize(
    "arguments",
    [
        [""],
        [BALL, "--seed", "-1"],
        [BALL, "-i", "synthetic:8", "--strength", "7"],
        [BALL, "--frames", "0"],
        [BALL, "--loop"],
    ],
)
def test_what_needs_no_model_to_be_wrong_is_told_before_one_is_loaded(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
):
    def loaded(*_: object, **__: object) -> None:
        pytest.fail("a model was loaded first")

    monkeypatch.setattr("streamgen.serving.host.Host", loaded)
    assert run("-o", "old.mp4", *arguments) == 2


@pytest.mark.parametrize(
    ("output", "code", "words"),
    [
        ("", 2, "-o is empty"),
        ("film.xyz", 2, "known: .mp4"),
        ("film", 2, "known: .mp4"),
        ("two\nlines.xyz", 2, "known: .mp4"),
        ("tape:", 2, "there is no tape:"),
        ("null:1", 2, "takes nothing after the colon"),
        ("film.gif", 2, "cannot be endless"),
        ("missing/film.mp4", 3, "there is no folder missing"),
        (".", 3, "names a folder"),
        ("film.mp4/", 3, "names a folder"),
        ("/proc/film.mp4", 3, "cannot write /proc/film.mp4"),
        ("f" * 300 + ".mp4", 3, "File name too long"),
    ],
)
def test_an_output_that_cannot_be_is_told_in_one_line(
    output: str, code: int, words: str, folder: Path, capsys: pytest.CaptureFixture[str]
):
    assert run(BALL, "-o", output) == code
    assert words in complaint(capsys)
    assert os.listdir(folder) == ["old.mp4"]


def test_an_endless_input_does_not_fit_into_a_gif(capsys: pytest.CaptureFixture[str]):
    assert run(BALL, "-i", "synthetic:", "-o", "film.gif") == 2
    assert "cannot be endless" in complaint(capsys)
    assert run(BALL, "-i", "old.mp4", "--loop", "-o", "film.gif") == 2
    assert "cannot be endless" in complaint(capsys)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing.mp4", "there is no file missing.mp4"),
        ("folder.mp4", "is a folder"),
        ("empty.mp4", "is empty (0 bytes)"),
        ("text.mp4", "is neither a video nor a picture"),
        ("sound.wav", "has sound but no pictures"),
        ("cut.mp4", "is neither a video nor a picture"),
    ],
)
def test_an_input_that_cannot_be_read_is_told_in_one_line(
    name: str, words: str, folder: Path, capsys: pytest.CaptureFixture[str]
):
    (folder / "folder.mp4").mkdir()
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("this is no film\n" * 100)
    with wave.open(str(folder / "sound.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(16_000))
    whole = write_video(folder / "whole.mp4", grey_ramp(12)).read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])  # its index stands at the end
    assert run(BALL, "-i", name, "-o", "old.mp4", "--frames", "4") == 3
    assert words in complaint(capsys)
    assert (folder / "old.mp4").read_bytes() == OLD


def test_a_film_that_is_cut_off_is_restyled_as_far_as_it_goes(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    film = folder / "film.mkv"
    write_video(film, grey_ramp(24), codec_options={"g": "1"}, fps=16)
    film.write_bytes(film.read_bytes()[:-400])
    assert run("a pencil sketch", "-i", "film.mkv", "-o", "new.mp4") == 0
    assert 0 < num_frames(folder / "new.mp4") <= 24
    assert capsys.readouterr().out == ""


def damaged_weights(folder: Path) -> Iterator[tuple[str, str]]:
    """Name and expected words of weights files that cannot be used."""
    with safe_open(PACKAGE_WEIGHTS, framework="pt") as stored:
        metadata = stored.metadata()
        names = list(stored.keys())
        tensors = {name: stored.get_tensor(name) for name in names}
    whole = PACKAGE_WEIGHTS.read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (folder / "text.safetensors").write_text("these are no weights\n" * 100)
    (folder / "empty.safetensors").touch()
    (folder / "folder.safetensors").mkdir()
    one = {"a": torch.zeros(3)}
    save_file(one, folder / "other.safetensors")
    save_file(one, folder / "bare.safetensors", {"format": metadata["format"]})
    wrong = metadata | {"shapes": '{"dit": 3'}
    save_file(one, folder / "shapes.safetensors", wrong)
    save_file(one, folder / "missing.safetensors", metadata)
    tensors[names[0]] = torch.zeros(3)
    save_file(tensors, folder / "sizes.safetensors", metadata)
    yield "absent", "absent.safetensors"
    for name in ("cut", "text", "empty", "folder", "other", "bare", "shapes", "missing"):
        yield name, f"{name}.safetensors"
    yield "sizes", names[0]


def test_weights_that_cannot_be_used_are_told_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    for name, words in damaged_weights(folder):
        setting = f"model.weights={name}.safetensors"
        assert run(BALL, "--set", setting, "-o", "old.mp4", "--frames", "4") in (2, 3), name
        assert words in complaint(capsys)
    assert (folder / "old.mp4").read_bytes() == OLD


@pytest.mark.parametrize("name", ["film.mp4", "film.mov", "film.mkv", "film.webm", "film.gif"])
def test_a_film_has_as_many_frames_as_asked(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
):
    assert run(BALL, "-o", name, "--frames", "6", "--zoom", "2") == 0
    with av.open(str(folder / name)) as container:
        sizes = {(frame.width, frame.height) for frame in container.decode(video=0)}
    assert sizes == {(128, 128)}
    assert num_frames(folder / name) == 6
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"{name}: 0.4 s of video, 6 frames, ")
    assert err.count("\n") == 1


def test_seconds_end_a_video_from_words_and_one_from_an_endless_input(folder: Path):
    assert run(BALL, "-o", "words.mp4", "--seconds", "0.5") == 0
    assert run("a sketch", "-i", "synthetic:", "-o", "video.mp4", "--seconds", "0.5") == 0
    write_video(folder / "still.png", grey_ramp(1), codec="png", pixel_format="rgb24")
    assert run("a sketch", "-i", "still.png", "--loop", "-o", "loop.mp4", "--seconds", "0.5") == 0
    assert [num_frames(folder / f"{name}.mp4") for name in ("words", "video", "loop")] == [8, 8, 8]


def test_a_film_of_any_length_is_restyled_in_full(folder: Path):
    write_video(folder / "film.mp4", grey_ramp(11), fps=16)
    assert run("a sketch", "-i", "film.mp4", "-o", "new.mp4", "--strength", "0.3") == 0
    assert num_frames(folder / "new.mp4") == 11
    assert run("a sketch", "-i", "film.mp4", "-o", "film.mp4", "--fit", "letterbox") == 0
    assert num_frames(folder / "film.mp4") == 11


def test_a_film_without_a_name_is_named_after_the_prompt_and_replaces_none(folder: Path):
    prompt = "A red ball, over (a) green field at night"
    for _ in range(2):
        assert run(prompt, "--frames", "1") == 0
    assert run("red" + " red" * 100, "--frames", "1") == 0
    assert sorted(os.listdir(folder)) == [
        "a-red-ball-over-a-green-2.mp4",
        "a-red-ball-over-a-green.mp4",
        "old.mp4",
        "red-red-red-red-red-red.mp4",
    ]


def test_a_film_follows_prompts_with_times_and_needs_no_other(folder: Path):
    (folder / "story.txt").write_text("0:00 a red ball\n0:00.5 a blue star\n")
    assert run("--prompts", "story.txt", "-o", "story.mp4", "--frames", "12") == 0
    assert run("a red ball", "-o", "plain.mp4", "--frames", "12") == 0
    with av.open(str(folder / "story.mp4")) as story, av.open(str(folder / "plain.mp4")) as plain:
        pairs = zip(story.decode(video=0), plain.decode(video=0), strict=True)
        changes = [abs(one.to_ndarray() * 1.0 - two.to_ndarray()).mean() for one, two in pairs]
    assert max(changes[:8]) < 1 < min(changes[8:])


def test_a_still_picture_is_held_until_the_film_is_long_enough(folder: Path):
    write_video(folder / "still.png", grey_ramp(1), codec="png", pixel_format="rgb24")
    assert run("a sketch", "-i", "still.png", "-o", "held.mp4", "--frames", "6", "--mirror") == 0
    assert num_frames(folder / "held.mp4") == 6
    assert run("a sketch", "-i", "still.png", "-o", "held.gif") == 2


def test_words_that_have_no_effect_are_told_and_the_rest_is_shown(
    capsys: pytest.CaptureFixture[str],
):
    assert run("a red zeppelin", "-o", "null:", "--frames", "1") == 0
    note, progress = capsys.readouterr().err.splitlines()
    assert note.startswith("streamgen: the model does not know: zeppelin; it draws")
    assert progress.startswith("null: ")


def test_a_disk_that_fills_up_costs_neither_the_old_film_nor_a_traceback(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        assert run(BALL, "-o", "old.mp4", "--frames", "160") == 3
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "file may not grow further: old.mp4" in complaint(capsys)
    assert os.listdir(folder) == ["old.mp4"]
    assert (folder / "old.mp4").read_bytes() == OLD


def test_presets_are_listed_with_what_their_models_draw(capsys: pytest.CaptureFixture[str]):
    assert main(["presets"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "tiny-cpu " in out
    assert "tiny-cpu-v2v " in out
    assert "tiny: draws" in out


@pytest.mark.parametrize("arguments", [[], ["play"], ["presets", "more"], ["--faster"]])
def test_an_unknown_command_is_told_in_one_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
):
    assert main(arguments) == 2
    assert "see streamgen" in complaint(capsys)
