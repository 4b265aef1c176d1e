"""Prompts of all streams: encoded once, mixed, and changed from one chunk to the next.

A prompt in braces is a mix: {a red ball: 2 | a blue star: 1}. Weights may be left out.
"""

from __future__ import annotations

import math
import re
import threading
from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor

from streamgen.engine.engine import Engine
from streamgen.engine.session import Session
from streamgen.errors import ConfigError
from streamgen.models.base import TextEncoder
from streamgen.ops.blending import Blend, blended
from streamgen.types import PromptId, SessionId

MAX_PROMPT_CHARACTERS = 2000  # a longer one is a mistake: no text encoder reads so far
MAX_TRANSITION_CHUNKS = 1000
SHOWN_CHARACTERS = 60  # of a prompt, in a message
NUM_REMEMBERED_PROMPTS = 64  # whose features are kept: up to 4 MB each
NUM_READY_PROMPTS = 2  # whose keys and values are kept though no stream uses them: 0.1 GB each
_WEIGHTED = re.compile(r"(?P<text>.*\S)\s*:\s*(?P<weight>[0-9.eE+-]+)\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class PromptPart:
    """One prompt of a mix."""

    text: str
    weight: float


@dataclass(slots=True, eq=False)
class _Transition:
    """On the way from one prompt to another, one step a chunk."""

    start_MD: Tensor
    end_MD: Tensor
    target: str
    blend: Blend
    num_chunks: int
    first_chunk: int
    given_MD: Tensor
    """What the next chunk begins with."""
    next_step: int = 0


class PromptShelf:
    """Owns features of prompts, and transitions of sessions; sessions hold their prompts' ids."""

    def __init__(self, engine: Engine, text: TextEncoder, *, knowledge: str, blend: Blend) -> None:
        """`knowledge` is what to tell of a model that knows no word of a prompt."""
        self._engine = engine
        self._text = text
        self._knowledge = knowledge
        self._blend = blend
        self._features: OrderedDict[str, Tensor] = OrderedDict()
        self._lock = threading.Lock()  # of the features; another thread may prepare some
        self._encoding = threading.Lock()  # the encoder does one at a time
        self._ready: OrderedDict[str, PromptId] = OrderedDict()
        self._current: dict[SessionId, Tensor] = {}
        self._transitions: dict[SessionId, _Transition] = {}

    def prompt_id(self, prompt: str) -> PromptId:
        """The engine's handle of a prompt or a mix, good until some other prompts were asked for.

        Raises ConfigError for a prompt that cannot be meant, or that would have no effect.
        """
        features_MD = self.features(prompt)
        if prompt not in self._ready:
            self._ready[prompt] = self._engine.add_prompt(features_MD)
            if len(self._ready) > NUM_READY_PROMPTS:
                _, oldest = self._ready.popitem(last=False)
                self._engine.drop_prompt(oldest)
        self._ready.move_to_end(prompt)
        return self._ready[prompt]

    def features(self, prompt: str) -> Tensor:
        """Features [M, D] of a prompt or a mix. Errors as `prompt_id`."""
        check_prompt(prompt)
        parts = parts_of(prompt)
        if len(parts) == 1:
            return self._encoded(parts[0].text)
        return blended([(self._encoded(part.text), part.weight) for part in parts], self._blend)

    def is_ready(self, prompt: str) -> bool:
        """Whether a prompt takes no time: its features are here, it is refused, or encoding is
        quick. For any thread."""
        if not self._text.takes_long:
            return True
        try:
            check_prompt(prompt)
        except ConfigError:
            return True
        with self._lock:
            return all(part.text in self._features for part in parts_of(prompt))

    def prepare(self, prompt: str) -> None:
        """Encode a prompt, so that it is there when it is needed. For any thread; errors as
        `prompt_id`."""
        self.features(prompt)

    def unknown_words(self, prompt: str) -> tuple[str, ...]:
        """Words of a prompt, or of all of a mix, that have no effect."""
        found = [self._text.unknown_words(part.text) for part in parts_of(prompt)]
        return tuple(dict.fromkeys(word for words in found for word in words))

    def negative_id(self, text: str) -> PromptId:
        """The handle of a negative prompt, which may be empty; the caller holds it."""
        return self._engine.add_prompt(self._text.encode(text))

    def opened(self, session: Session, prompt: str) -> None:
        """Note what a new session follows."""
        self._current[session.id] = self.features(prompt)

    def closed(self, session: Session) -> None:
        """Forget a session; once is enough, twice does no harm."""
        self._current.pop(session.id, None)
        self._transitions.pop(session.id, None)

    def follow(self, session: Session, prompt: str, *, over_chunks: int) -> None:
        """From its next chunk on, let a session go over to a prompt, within so many chunks.

        0 and 1 switch at once. A transition under way is left where it is, and the new one starts
        there. Raises ConfigError as `prompt_id`, and for a number that is not in 0 to 1000.
        """
        if not 0 <= over_chunks <= MAX_TRANSITION_CHUNKS:
            raise ConfigError(
                f"a transition over {over_chunks} chunks is not in 0 to {MAX_TRANSITION_CHUNKS}; "
                f"choose one that is"
            )
        end_MD = self.features(prompt)
        start_MD = self._current[session.id]
        self._transitions.pop(session.id, None)
        if over_chunks <= 1:
            self._engine.set_prompt(session, self.prompt_id(prompt))
            self._current[session.id] = end_MD
            return
        self._transitions[session.id] = _Transition(
            start_MD, end_MD, prompt, self._blend, over_chunks, session.next_chunk, start_MD
        )

    def advance(self, session: Session) -> None:
        """Before a tick: give the session's next chunk its prompt, if it is in a transition."""
        transition = self._transitions.get(session.id)
        if transition is None:
            return
        step = session.next_chunk - transition.first_chunk
        if step < transition.next_step:
            return
        transition.next_step = step + 1
        self._current[session.id] = transition.given_MD  # the chunk before has begun with it
        if step >= transition.num_chunks:
            self._transitions.pop(session.id)
            return
        share = (step + 1) / transition.num_chunks
        if share == 1:
            transition.given_MD = transition.end_MD
            self._engine.set_prompt(session, self.prompt_id(transition.target))
            return
        pair = [(transition.start_MD, 1 - share), (transition.end_MD, share)]
        transition.given_MD = blended(pair, transition.blend)
        prompt = self._engine.add_prompt(transition.given_MD)
        self._engine.set_prompt(session, prompt)
        self._engine.drop_prompt(prompt)

    def _encoded(self, text: str) -> Tensor:
        features_MD = self._remembered(text)
        if features_MD is None:
            with self._encoding:
                features_MD = self._remembered(text)  # another thread may have been at it
                if features_MD is None:
                    features_MD = self._text.encode(text)
        if not len(features_MD):
            raise ConfigError(
                f"the model knows no word of the prompt {_shortened(text)!r}; it {self._knowledge}"
            )
        with self._lock:
            self._features[text] = features_MD
            self._features.move_to_end(text)
            if len(self._features) > NUM_REMEMBERED_PROMPTS:
                self._features.popitem(last=False)
        return features_MD

    def _remembered(self, text: str) -> Tensor | None:
        with self._lock:
            return self._features.get(text)


def parts_of(prompt: str) -> tuple[PromptPart, ...]:
    """The prompts of a mix with their weights; a plain prompt alone. ConfigError for a bad mix."""
    stripped = prompt.strip()
    if not (stripped.startswith("{") and stripped.endswith("}")):
        return (PromptPart(prompt, 1.0),)
    parts = tuple(_part(text) for text in stripped[1:-1].split("|"))
    if not any(part.weight > 0 for part in parts):
        raise ConfigError(f"the mix {_shortened(prompt)!r} has no weight above 0; give one")
    return parts


def check_prompt(prompt: str) -> None:
    """Raises ConfigError for a prompt that cannot be meant."""
    if not prompt.strip():
        raise ConfigError('the prompt is empty; write what to show, as "a red ball at night"')
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        raise ConfigError(
            f"the prompt has {len(prompt)} characters, {MAX_PROMPT_CHARACTERS} are allowed; "
            f"shorten it"
        )
    parts_of(prompt)


def _part(text: str) -> PromptPart:
    match = _WEIGHTED.fullmatch(text)
    words, weight = text.strip(), 1.0
    if match:
        try:
            words, weight = match["text"].strip(), float(match["weight"])
        except ValueError:
            weight = math.nan
        if not (math.isfinite(weight) and weight >= 0):
            raise ConfigError(
                f"the weight of {_shortened(text.strip())!r} is no number from 0 on; write a mix "
                f"as {{a red ball: 2 | a blue star: 1}}"
            )
    if not words:
        raise ConfigError(
            "a prompt of the mix is empty; write it as {a red ball: 2 | a blue star: 1}"
        )
    return PromptPart(words, weight)


def _shortened(prompt: str) -> str:
    return prompt if len(prompt) <= SHOWN_CHARACTERS else f"{prompt[:SHOWN_CHARACTERS]}..."
