"""Where published files are: "hub:OWNER/NAME/path/in/it" names a file of the Hugging Face hub.

A reference that ends in / is a folder, of which TOKENIZER_FILES are meant. Files live in the hub's
own cache (HF_HOME), so what other programs have downloaded is found; nothing is downloaded unless
`download` is called. Anything that does not begin with "hub:" is a path.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from streamgen.errors import CheckpointError, ConfigError, install_command
from streamgen.models.file_text import reason_of

SCHEME = "hub:"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "spiece.model",
)
HASH_BLOCK_BYTES = 16 << 20
LEDGER = "streamgen-downloads.json"


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a repository."""

    repository: str
    path: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.repository}/{self.path}"


@dataclass(frozen=True, slots=True)
class Downloaded:
    """What is recorded of a file that was downloaded."""

    reference: str
    revision: str
    size_bytes: int
    sha256: str


def is_reference(text: str) -> bool:
    return text.startswith(SCHEME)


def files_of(reference: str) -> tuple[HubFile, ...]:
    """The files that a reference names; ConfigError if it is not written as one."""
    owner, _, rest = reference.removeprefix(SCHEME).partition("/")
    name, _, path = rest.partition("/")
    if not (is_reference(reference) and owner and name and path):
        raise ConfigError(f"{reference!r} is not a file on the hub; write hub:OWNER/NAME/FILE")
    repository = f"{owner}/{name}"
    if not path.endswith("/"):
        return (HubFile(repository, path),)
    return tuple(HubFile(repository, path + file) for file in TOKENIZER_FILES)


def find(reference: str, *, remedy: str) -> Path:
    """The path of a file or folder: as it is, or where the hub's cache has it.

    Raises CheckpointError, with `remedy`, if it was not downloaded; ConfigError if it is written
    wrongly, or if huggingface_hub is not installed.
    """
    if not is_reference(reference):
        return Path(reference).expanduser()
    files = files_of(reference)
    places = [cached(file) for file in files]
    for file, place in zip(files, places, strict=True):
        if place is None:
            raise CheckpointError(f"{file} is not on this machine; {remedy}")
    assert places[0] is not None
    return places[0].parent if reference.endswith("/") else places[0]


def cached(file: HubFile) -> Path | None:
    """Where the cache has a file; None if it does not."""
    found = _library().try_to_load_from_cache(file.repository, file.path)
    return Path(found) if isinstance(found, str) else None


def download(file: HubFile) -> Downloaded:
    """Fetch a file, or the rest of it, with a progress bar; hash it, and record what came.

    A file that is there already is not fetched again. Raises CheckpointError if it cannot be had,
    or if its contents are not those that the hub announces.
    """
    library = _library()
    try:
        place = Path(library.hf_hub_download(file.repository, file.path))
    except Exception as error:  # network, disk, rights, names: the library has forty kinds
        raise CheckpointError(f"{file}: {_why(error)}") from error
    digest = sha256_of(place)
    announced = place.resolve().name  # the cache calls a large file by its sha256
    if len(announced) == len(digest) and announced != digest:
        raise CheckpointError(
            f"{file}: has sha256 {digest}, the hub announces {announced}; delete "
            f"{place.resolve()} and download it again"
        )
    record = Downloaded(str(file), _revision(place), place.stat().st_size, digest)
    _note(record)
    return record


def sha256_of(path: Path) -> str:
    """Hash of a file's contents, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as opened:
        while block := opened.read(HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def records() -> dict[str, Downloaded]:
    """What was recorded of downloads, by reference; empty if nothing was."""
    try:
        text = ledger_path().read_text(encoding="utf-8")
        return {entry["reference"]: Downloaded(**entry) for entry in json.loads(text)}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def ledger_path() -> Path:
    """Where downloads are recorded: beside the hub's cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HOME) / LEDGER


def _note(record: Downloaded) -> None:
    entries = records() | {record.reference: record}
    path = ledger_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    text = json.dumps([asdict(entry) for entry in entries.values()], indent=1)
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)


def _revision(place: Path) -> str:
    """The commit that a file of the cache belongs to: .../snapshots/COMMIT/path."""
    parts = place.parts
    if "snapshots" not in parts:
        return ""
    last = len(parts) - 1 - parts[::-1].index("snapshots")
    return parts[last + 1]


def _why(error: Exception) -> str:
    name = type(error).__name__
    remedies = {
        "GatedRepoError": "its owner wants you to agree to a licence; do so on its page on the "
        "hub, then: hf auth login",
        "RepositoryNotFoundError": "there is no such repository, or it wants a login; try: "
        "hf auth login",
        "EntryNotFoundError": "the repository has no such file; it may have been renamed",
        "RemoteEntryNotFoundError": "the repository has no such file; it may have been renamed",
        "LocalEntryNotFoundError": "it is not in the cache and the hub cannot be reached; check "
        "the network and HF_HUB_OFFLINE, then try again: what has come stays",
    }
    return remedies.get(name) or (
        f"the download failed ({reason_of(error)}); try again: what has come stays"
    )


def _library():
    try:
        import huggingface_hub
    except ImportError as error:
        raise ConfigError(
            f"files of the hub need huggingface_hub ({error}); install it: "
            f"{install_command('models')}, or set paths of your own"
        ) from error
    return huggingface_hub
