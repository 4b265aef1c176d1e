from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from streamgen.errors import ConfigError
from streamgen.scheduling.service import (
    PipelineFacts,
    Quality,
    ServiceLevel,
    check_service,
    quality_ladder,
)

ASKED: dict[str, Any] = {"fps": 16.0, "first_frame_s": 1.0, "latency_s": 0.5}
FACTS = PipelineFacts(fps=16.0, num_steps=4, clip_frames=4, takes_video=True)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("fps", -1.0),
        ("fps", 0.0),
        ("fps", float("nan")),
        ("first_frame_s", -0.5),
        ("latency_s", 0.0),
        ("weight", 0.5),
        ("min_steps", -1),
        ("min_fps", 17.0),
        ("min_picture", 0.0),
        ("min_picture", 2.0),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"service.{key}"):
        ServiceLevel(**{**ASKED, key: value})


@pytest.mark.parametrize(
    ("changed", "facts", "name"),
    [
        ({"fps": 24.0}, FACTS, "fps"),
        ({"min_steps": 5}, FACTS, "min_steps"),
        ({"latency_s": 0.18}, FACTS, "latency_s"),
        ({"first_frame_s": 0.1}, FACTS, "first_frame_s"),
        ({}, replace(FACTS, takes_video=False), "latency_s"),
    ],
)
def test_what_a_pipeline_could_never_keep_is_refused_by_name(
    changed: dict[str, Any], facts: PipelineFacts, name: str
) -> None:
    """A clip of four pictures at 16 a second takes 0.1875 s to arrive: less is impossible."""
    with pytest.raises(ConfigError, match=rf"service\.{name} = "):
        check_service(ServiceLevel(**(ASKED | changed)), facts)


def test_nothing_is_on_the_ladder_that_was_not_accepted() -> None:
    assert quality_ladder(ServiceLevel(**ASKED), FACTS) == (Quality(4),)


def test_the_ladder_goes_down_in_the_order_of_what_is_least_seen() -> None:
    service = ServiceLevel(**ASKED, min_steps=2, min_fps=8.0, accepts_still=True)
    ladder = quality_ladder(service, FACTS)
    assert [str(one) for one in ladder] == [
        "4 steps",
        "4 steps, still clips held",
        "3 steps, still clips held",
        "2 steps, still clips held",
        "2 steps, still clips held, rate 1/2",
    ]
