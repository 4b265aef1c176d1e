"""Prompts that take long: streams go on meanwhile, and nobody's requests change places."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest
from torch import Tensor

from streamgen import Host
from streamgen.clock import MonotonicClock
from streamgen.errors import ConfigError
from streamgen.models.base import TextEncoder
from streamgen.models.bundle import ModelBundle
from streamgen.serving.live import LiveHost
from streamgen.serving.live_facts import PresetFacts, Wishes
from streamgen.serving.live_stream import LiveStream

PRESET = "tiny-cpu"
SMALL = ("picture.height=64", "picture.width=64", "model.num_threads=1")
WAIT_S = 20.0  # far more than anything here takes
SLOW = "a blue star at night"


class SlowWords:
    """A text encoder that does not come back from one prompt until it is let go."""

    takes_long = True

    def __init__(self, text: TextEncoder) -> None:
        self._text = text
        self.threads: dict[str, str] = {}
        self.has_begun = threading.Event()
        self.may_go_on = threading.Event()

    def encode(self, prompt: str) -> Tensor:
        self.threads[prompt] = threading.current_thread().name
        if prompt == SLOW:
            self.has_begun.set()
            assert self.may_go_on.wait(WAIT_S)
        return self._text.encode(prompt)

    def unknown_words(self, prompt: str) -> tuple[str, ...]:
        return self._text.unknown_words(prompt)


@pytest.fixture(scope="module")
def bundle() -> ModelBundle:
    with Host(PRESET, overrides=SMALL) as host:
        return host.pipeline.bundle


@pytest.fixture
def slow(bundle: ModelBundle) -> Iterator[tuple[LiveHost, PresetFacts, SlowWords]]:
    clock, words = MonotonicClock(), SlowWords(bundle.text)
    make = partial(Host, PRESET, overrides=SMALL, clock=clock, bundle=replace(bundle, text=words))
    host = LiveHost({PRESET: make}, clock=clock)
    try:
        yield host, host.start()[0], words
    finally:
        words.may_go_on.set()
        host.stop()


def opened(host: LiveHost, facts: PresetFacts, prompt: str) -> LiveStream:
    return host.open(Wishes(PRESET, prompt, seed=1, strength=None, steps=None), facts)


def test_a_stream_is_drawn_while_anothers_words_are_read(
    slow: tuple[LiveHost, PresetFacts, SlowWords],
) -> None:
    host, facts, words = slow
    stream = opened(host, facts, "a red ball")
    stream.granted().result(WAIT_S)
    changed = stream.change(prompt=SLOW)
    assert words.has_begun.wait(WAIT_S)
    for _ in range(20):
        assert stream.output.get(timeout_s=WAIT_S) is not None
    assert not changed.done()
    words.may_go_on.set()
    assert changed.result(WAIT_S).wishes.prompt == SLOW
    assert set(words.threads.values()) == {"words_0"}


def test_requests_of_a_stream_wait_for_its_words_and_others_do_not(
    slow: tuple[LiveHost, PresetFacts, SlowWords],
) -> None:
    """It is opened, changed and closed in this order, though opening takes longest."""
    host, facts, words = slow
    other = opened(host, facts, "a red ball")
    other.granted().result(WAIT_S)
    stream = opened(host, facts, SLOW)
    assert words.has_begun.wait(WAIT_S)
    changed, closed = stream.change(prompt="a red ball"), stream.close()
    other.change(strength=None).result(WAIT_S)
    assert not changed.done()
    assert not closed.done()
    words.may_go_on.set()
    closed.result(WAIT_S)
    assert changed.done()
    assert host.num_streams() == 1


def test_words_that_cannot_be_meant_are_refused_at_once(
    slow: tuple[LiveHost, PresetFacts, SlowWords],
) -> None:
    host, facts, _ = slow
    stream = opened(host, facts, "a red ball")
    with pytest.raises(ConfigError, match="the prompt is empty"):
        stream.change(prompt=" ").result(WAIT_S)
    with pytest.raises(ConfigError, match="knows no word"):
        stream.change(prompt="xyzzy").result(WAIT_S)
    assert stream.granted().result(WAIT_S).wishes.prompt == "a red ball"


def test_stopping_waits_for_no_words(slow: tuple[LiveHost, PresetFacts, SlowWords]) -> None:
    host, facts, words = slow
    stream = opened(host, facts, "a red ball")
    stream.granted().result(WAIT_S)
    changed = stream.change(prompt=SLOW)
    assert words.has_begun.wait(WAIT_S)
    host.stop()
    words.may_go_on.set()
    assert changed.exception(WAIT_S) is not None
