"""Draws a little with every model before the first visitor, who would wait for it otherwise.

What is done once - kernels chosen or compiled, memory taken, costs measured - is done then.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streamgen.clock import Clock
from streamgen.errors import StreamGenError
from streamgen.serving.live import LiveHost
from streamgen.serving.live_facts import PresetFacts, Wishes
from streamgen.types import Frame

PICTURES = 12  # that are drawn: a few chunks
LONGEST_S = 600.0  # that a model may take for them, compiling included
SHOW_EVERY_S = 0.05  # a picture to a model that has not drawn anything yet


def warm(host: LiveHost, presets: Sequence[PresetFacts], clock: Clock) -> None:
    """Draw some pictures of each preset; raises what a visitor would have got as an error."""
    for facts in presets:
        stream = host.open(Wishes(facts.name, "warming up"), facts)
        shape, num_drawn, began_s = (facts.size.height, facts.size.width, 3), 0, clock.now()
        still = np.zeros(shape, np.uint8)
        try:
            while num_drawn < PICTURES:
                now_s = clock.now()
                if stream.input is not None:
                    stream.show(Frame(still, now_s, now_s))
                wait_s = LONGEST_S if stream.input is None else SHOW_EVERY_S
                frame = stream.output.get(timeout_s=wait_s)
                num_drawn += frame is not None
                if frame is None and now_s - began_s > LONGEST_S:
                    raise StreamGenError(
                        f"preset {facts.name} drew nothing within {LONGEST_S:.0f} s; see its log"
                    )
        finally:
            stream.close().result()
