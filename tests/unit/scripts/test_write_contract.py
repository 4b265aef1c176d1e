"""What is made from the server's models agrees with them."""

from __future__ import annotations

import re

import pytest

from streamgen.serving.gateway import contract, messages
from write_contract import PAGE, ROOT, TYPES, written


@pytest.mark.parametrize("path", [PAGE, TYPES], ids=lambda path: path.name)
def test_documents_say_what_the_code_says(path: object):
    text = written()[path]  # type: ignore[index]
    assert text == path.read_text(encoding="utf-8"), "run scripts/write_contract.py"  # type: ignore[attr-defined]


def test_every_message_is_documented_and_has_a_type():
    page, types = PAGE.read_text(encoding="utf-8"), TYPES.read_text(encoding="utf-8")
    for model in (*contract.COMMANDS, *contract.REPORTS):
        kind = model.model_fields["type"].default
        assert f"**`{kind}`**" in page
        assert f'type: "{kind}";' in types


def test_the_page_tells_the_limits_that_the_code_has():
    page = PAGE.read_text(encoding="utf-8")
    assert f"no more than {messages.IN_FLIGHT}" in page or "more than two on" in page
    assert messages.IN_FLIGHT == 2


def test_the_page_shows_every_message_of_the_contract_in_order():
    drawn = re.search(r"```\n client .*?```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert drawn is not None
    told = messages.__doc__ or ""
    for word in ("offer", "start", "waiting", "granted", "figures", "problem", "moved", "ended"):
        assert word in drawn.group()
        assert word in told
    assert ROOT.is_dir()
