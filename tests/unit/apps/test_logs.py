"""STREAMGEN_LOG says how much the programs tell."""

import logging
from collections.abc import Iterator

import pytest

from streamgen.errors import ConfigError
from streamgen_apps.logs import begin_logging


@pytest.fixture(autouse=True)
def level_as_before() -> Iterator[None]:
    logger = logging.getLogger("streamgen")
    before = logger.level
    yield
    logger.setLevel(before)


@pytest.mark.parametrize(("value", "level"), [("info", logging.INFO), ("DEBUG", logging.DEBUG)])
def test_a_level_is_taken_by_its_name(
    value: str, level: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMGEN_LOG", value)
    begin_logging()
    assert logging.getLogger("streamgen").level == level


def test_without_it_the_level_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STREAMGEN_LOG", raising=False)
    before = logging.getLogger("streamgen").level
    begin_logging()
    assert logging.getLogger("streamgen").level == before


def test_any_other_word_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMGEN_LOG", "loud")
    with pytest.raises(ConfigError, match='STREAMGEN_LOG = "loud" is none of debug, info'):
        begin_logging()
