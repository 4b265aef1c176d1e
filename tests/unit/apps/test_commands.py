"""What is typed while a stream runs: a fake stream obeys; a real terminal is given back."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from streamgen.clock import MonotonicClock
from streamgen.errors import ConfigError
from streamgen_apps.commands import Commands
from streamgen_apps.console import LineEditor

ROOT = Path(__file__).resolve().parents[3]
SMALL = ("--set", "picture.height=64", "--set", "picture.width=64", "--set", "model.num_threads=1")
TIMEOUT_S = 60.0


class FakeStream:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    @property
    def unknown_words(self) -> tuple[str, ...]:
        return ("zeppelin",) if "zeppelin" in self.told[-1] else ()

    def __setattr__(self, name: str, value: object) -> None:
        if name == "strength" and not 0 <= float(str(value)) <= 1:
            raise ConfigError("strength 7 is not in 0 to 1; choose one that is")
        if name == "told":
            super().__setattr__(name, value)
        else:
            self.told.append(f"{name}={value}")

    def reset(self, *, seed: int | None = None) -> None:
        self.told.append(f"reset {seed}")


def obeyed(*lines: str) -> tuple[list[str], list[str]]:
    """What the stream and the person are told."""
    said: list[str] = []
    commands, stream = Commands(said.append), FakeStream()
    for line in lines:
        commands.put(line)
    commands.obey(stream)  # type: ignore[arg-type]
    return stream.told, said


def test_lines_are_prompts_and_slashes_are_commands():
    told, said = obeyed(" a storm \n", "", "/strength 0.5", "/seed 7", "/reset", "/Reset 8")
    assert told == ["prompt=a storm", "strength=0.5", "reset 7", "reset None", "reset 8"]
    assert said == []


def test_what_cannot_be_obeyed_is_told_and_the_rest_is_obeyed():
    told, said = obeyed("/faster", "/strength much", "/strength 7", "a zeppelin", "/help")
    assert told == ["prompt=a zeppelin"]
    assert said[0].startswith("there is no /faster; a line is a new prompt, ")
    assert "/strength 0.5" in said[0]
    assert said[1] == "'much' is no number; as in /strength 0.5 or /seed 7"
    assert said[2] == "strength 7 is not in 0 to 1; choose one that is"
    assert said[3] == "the model does not know: zeppelin"
    assert said[4].startswith("a line is a new prompt")


def test_a_paused_stream_waits_for_the_word_and_obeys_meanwhile():
    told, _ = obeyed("/pause", "a storm", "/resume")
    assert told == ["prompt=a storm"]


def test_quit_is_the_tidy_end_of_ctrl_c():
    with pytest.raises(KeyboardInterrupt):
        obeyed("/quit")


@pytest.mark.parametrize(
    ("typed", "lines", "rest"),
    [
        (["a sto", "rm\ra c"], ["a storm"], "a c"),
        (["a stx\x7form\n"], ["a storm"], ""),
        (["rubbish\x15a storm\r"], ["a storm"], ""),
        (["a storm goes\x17comes\r"], ["a storm comes"], ""),
        (["\x7f\x7fa\r\r"], ["a", ""], ""),
        (["a", "\x1b[A", "b\r"], ["ab"], ""),
        (["x" * 5000], [], "x" * 2000),
        (["\x00\x07sn\u00f6\r"], ["sn\u00f6"], ""),
    ],
)
def test_a_line_can_be_edited_while_it_is_typed(typed: list[str], lines: list[str], rest: str):
    editor = LineEditor()
    assert [line for part in typed for line in editor.feed(part)] == lines
    assert editor.text == rest


def on_a_terminal(arguments: list[str], folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """The command with a terminal of its own, and our end of it."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "streamgen_apps.cli", "run", *arguments, *SMALL],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder,
        preexec_fn=lambda: os.login_tty(theirs),
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "apps")])},
    )  # fmt: skip
    os.close(theirs)
    return process, ours


def test_on_a_terminal_prompts_are_typed_and_the_terminal_is_given_back(tmp_path: Path):
    """Typed letters stand behind the progress; Ctrl-C finishes the film; echo is on again."""
    process, terminal = on_a_terminal(["a red ball", "-o", "film.mp4"], tmp_path)
    shown = read_until(terminal, b"frames/s")
    os.write(terminal, b"a blue zeppelin")
    shown += read_until(terminal, b"> a blue zeppelin")
    os.write(terminal, b"\r")
    shown += read_until(terminal, b"the model does not know: zeppelin")
    os.write(terminal, b"\x03")
    shown += read_until(terminal, b"first frame after")
    assert process.wait(TIMEOUT_S) == 0
    assert termios.tcgetattr(terminal)[3] & termios.ECHO
    os.close(terminal)
    assert (tmp_path / "film.mp4").stat().st_size > 0
    assert b"Traceback" not in shown


def read_until(terminal: int, words: bytes) -> bytes:
    """What the program shows up to and with `words`; fails at its end or after TIMEOUT_S."""
    shown = b""
    end_s = MonotonicClock().now() + TIMEOUT_S
    while words not in shown:
        assert MonotonicClock().now() < end_s, shown
        try:
            shown += os.read(terminal, 4096)
        except OSError as error:
            raise AssertionError(shown) from error
    return shown


def test_prompts_are_taken_from_a_pipe(tmp_path: Path):
    process = subprocess.Popen(
        [sys.executable, "-m", "streamgen_apps.cli", "run", "a red ball", "--prompts", "-",
         "-o", "null:", *SMALL],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "apps")])},
    )  # fmt: skip
    _, told = process.communicate(b"a blue zeppelin\n/what\n/quit\n", timeout=TIMEOUT_S)
    assert process.returncode == 0
    lines = told.decode().splitlines()
    assert lines[0] == "streamgen: the model does not know: zeppelin"
    assert lines[1].startswith("streamgen: there is no /what; ")
    assert lines[2].startswith("null: ")
    assert len(lines) == 3


def test_standard_input_that_nobody_mentioned_is_not_read(tmp_path: Path):
    """As in a shell's `while read` loop, whose lines are not for us."""
    done = subprocess.run(
        ["bash", "-c", '"$@" 2>/dev/null; cat', "-", sys.executable, "-m", "streamgen_apps.cli",
         "run", "a red ball", "-o", "null:", "--frames", "4", *SMALL],
        input=b"a blue star\n", stdout=subprocess.PIPE, cwd=tmp_path, timeout=TIMEOUT_S, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "apps")])},
    )  # fmt: skip
    assert done.stdout == b"a blue star\n"
