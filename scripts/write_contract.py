"""Writes what is made from the server's models: parts of docs/api.md, TypeScript's types.

Run it after a change of messages or routes; a test fails until then.
"""

from __future__ import annotations

from pathlib import Path

from streamgen.serving.gateway import contract

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "api.md"
TYPES = ROOT / "apps" / "typescript-client" / "src" / "messages.ts"


def written() -> dict[Path, str]:
    """Each file and what should be in it."""
    page = PAGE.read_text(encoding="utf-8")
    page = _between(page, "routes", contract.routes_markdown())
    page = _between(page, "messages", contract.messages_markdown())
    return {PAGE: page, TYPES: contract.typescript()}


def _between(page: str, name: str, text: str) -> str:
    """The page with another text between the marks of a part."""
    begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}{text}\n{end}{after}"


def main() -> None:
    for path, text in written().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
