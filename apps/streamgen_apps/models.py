"""`streamgen models`: which published models there are, getting them, looking at files."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from streamgen.config.load import list_presets, load_file, load_preset
from streamgen.config.schema import StreamConfig
from streamgen.errors import ConfigError

CHECK, CROSS = "yes", "no"


def add_models(commands: argparse._SubParsersAction) -> None:
    """Add the subcommand and its four."""
    models = commands.add_parser(
        "models", help="published models: list them, download one, check a file"
    )
    what = models.add_subparsers(title="what to do", required=True, metavar="WHAT")
    listed = what.add_parser("list", help="recipes: size, licence, memory, whether they fit here")
    listed.set_defaults(command=_list)
    fit = what.add_parser("fit", help="settings with which a preset fits on cards from 8 to 80 GB")
    _add_preset(fit)
    fit.set_defaults(command=_fit)
    download = what.add_parser("download", help="get every file that a preset reads")
    _add_preset(download)
    download.set_defaults(command=_download)
    check = what.add_parser("check", help="what is this file, and does it load?")
    check.add_argument(
        "path", metavar="PATH", help="file, folder of a model, or hub:OWNER/NAME/FILE"
    )
    check.set_defaults(command=_check)


def _add_preset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a preset's name or a .toml file")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="change a setting of the preset, as wan.codec=taehv; may be given again",
    )


def _list(options: argparse.Namespace) -> int:
    from streamgen.serving.cards import fit_of
    from streamgen.serving.model_files import is_here

    rows: list[tuple[str, ...]] = [
        ("preset", "size", "licence", "GPU memory", "fits here", "downloaded")
    ]
    where = ""
    for info in list_presets():
        config = load_preset(info.name)
        if config.wan is None:
            continue
        fit = fit_of(config)
        free = "unknown" if fit.free_bytes is None else f"{fit.free_bytes / 1e9:.1f} GB"
        where = f"{fit.device}, {free} free"
        here = is_here(config.model, config.wan)
        rows.append(
            (
                info.name,
                config.wan.size,
                config.wan.license,
                f"{fit.on_gpu.device_bytes / 1e9:.1f} GB",
                CHECK if fit.fits else f"{CROSS}, {fit.here.device_bytes / 1e9:.1f} GB",
                CHECK if here else CROSS,
            )
        )
    _print_table(rows)
    print()
    print(f"This machine: {where}. GPU memory is an estimate for bfloat16 at the preset's size;")
    print("which settings fit on which card says: streamgen models fit NAME. Presets without a row")
    print("come with the package. Get one with: streamgen models download NAME")
    return 0


def _fit(options: argparse.Namespace) -> int:
    from streamgen.serving.cards import fits_on_cards

    config = _config(options.name, options.overrides)
    if config.wan is None:
        print(f"{options.name} fits everywhere: its model comes with the package")
        return 0
    rows: list[tuple[str, ...]] = [("card", "settings", "takes")]
    for fit in fits_on_cards(config):
        settings = "does not fit" if fit.settings is None else "as it is"
        if fit.settings:
            settings = " ".join(f"--set {text}" for text in fit.settings)
        rows.append((f"{fit.card_gb} GB", settings, "" if fit.memory is None else str(fit.memory)))
    _print_table(rows)
    print()
    print(
        "Estimates for bfloat16, made from sizes; the text encoder is on the host while it rests."
    )
    return 0


def _print_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = zip(row, widths, strict=True)
        print("  ".join(f"{cell:<{width}}" for cell, width in cells).rstrip())


def _download(options: argparse.Namespace) -> int:
    from streamgen.serving.model_files import download, to_download

    config = _config(options.name, options.overrides)
    if config.wan is None:
        print(f"{options.name} needs no download: its model comes with the package")
        return 0
    print(f"licence: {config.wan.license}, see {config.wan.page}", file=sys.stderr)
    files = to_download(config.model, config.wan)
    if not files:
        print(f"{options.name} names no file of the hub; nothing to download")
    for number, file in enumerate(files, start=1):
        print(f"{number} of {len(files)}: {file}", file=sys.stderr)
        record = download(file)
        print(f"{file}  {record.size_bytes} bytes  sha256 {record.sha256}")
    return 0


def _check(options: argparse.Namespace) -> int:
    from streamgen.serving.checking import check_path

    for checked in check_path(options.path):
        print(f"{checked.path}: {checked.kind}; it loads")
        for detail in checked.details:
            print(f"  {detail}")
    return 0


def _config(name: str, overrides: list[str]) -> StreamConfig:
    if name.endswith(".toml"):
        return load_file(Path(name), overrides)
    try:
        return load_preset(name, overrides)
    except ConfigError as error:
        if f"no preset {name!r}" not in str(error):
            raise
        raise ConfigError(f"{error}; streamgen models list shows those to download") from error
