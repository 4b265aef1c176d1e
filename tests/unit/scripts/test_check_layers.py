"""The floors: small trees, each with one fault, and the real one without any."""

from pathlib import Path

import pytest

import check_layers

ROOT = Path(__file__).resolve().parents[3]


FOLDERS = {"kernels": "kernels/streamgen_kernels", "apps": "apps/streamgen_apps"}


def faults(tmp_path: Path, sources: dict[str, str]) -> list[str]:
    """Offences of a tree: "cache/kv" is streamgen/cache/kv.py, "apps/x" is an app's module."""
    for name, source in sources.items():
        first, _, rest = name.partition("/")
        inner = f"{FOLDERS[first]}/{rest}" if first in FOLDERS else f"streamgen/{name}"
        path = tmp_path / f"{inner}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return [str(offence) for offence in check_layers.check_tree(tmp_path)]


def test_the_tree_of_this_repository_keeps_its_floors():
    assert [str(offence) for offence in check_layers.check_tree(ROOT)] == []


def test_imports_from_floors_below_and_inside_a_package_are_fine(tmp_path: Path):
    assert not faults(
        tmp_path,
        {
            "errors": "",
            "ops/rope": "import torch\nfrom streamgen.errors import StreamGenError",
            "cache/window": "",
            "cache/kv": "from streamgen.cache.window import X\nfrom streamgen.ops import rope",
            "models/dit": "from streamgen.cache import kv",
            "serving/build": "import streamgen.config.schema\nfrom streamgen.models.dit import X",
            "config/schema": "",
            "apps/cli": "from streamgen.serving import build\nfrom streamgen.errors import E",
        },
    )


@pytest.mark.parametrize(
    ("module", "source", "words"),
    [
        ("models/dit", "from streamgen.engine import x", "models (floor 4) is below engine"),
        ("ops/rope", "import streamgen.diffusion.flow", "neighbours on floor 2"),
        ("cache/kv", "from streamgen import parallel", "neighbours on floor 3"),
        ("errors", "from streamgen.types import Frame", "neighbours on floor 0"),
        ("config/load", "from streamgen.metrics import x", "neighbours on floor 1"),
        ("engine/engine", "from streamgen.config import x", "only streamgen.serving.build reads"),
        ("serving/live", "from streamgen.config import x", "only streamgen.serving.build reads"),
        ("cache/kv", "import streamgen", "stands above all floors"),
        ("cache/kv", "from streamgen import Stream", "stands above all floors"),
        ("cache/kv", "import streamgen_apps.cli", "nobody imports apps"),
        ("cache/kv", "import streamgen_kernels", "only streamgen.ops.backend may"),
        ("ops/backend", "import streamgen_kernels", "must be imported in a function"),
        ("kernels/rope", "from streamgen.errors import E", "kernels import nothing of streamgen"),
        ("apps/cli", "from streamgen.engine import x", "apps import serving and config only"),
        ("apps/cli", "import streamgen.metrics", "apps import serving and config only"),
        ("utils/x", "", "utils has no floor"),
        ("cache/kv", "from ..engine import x", "cache (floor 3) is below engine"),
    ],
)
def test_a_wrong_import_is_named(tmp_path: Path, module: str, source: str, words: str):
    others = {"parallel/ring": "", "engine/x": "", "metrics/x": "", "config/x": ""}
    found = faults(tmp_path, {**others, module: source})
    assert len(found) == 1
    assert words in found[0]


@pytest.mark.parametrize(
    "source",
    [
        "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from streamgen.engine import x",
        "import typing\n\nif typing.TYPE_CHECKING:\n    from streamgen.engine import x",
        "def f():\n\n\n    from streamgen.engine import x",
        "class A:\n    def f(self):\n        if 1:\n            from streamgen.engine import x",
        "try:\n    pass\nexcept ImportError:\n    from streamgen.engine import x",
    ],
)
def test_no_place_hides_an_import(tmp_path: Path, source: str):
    (fault,) = faults(tmp_path, {"models/dit": source})
    line = len(source.split("\n"))
    assert fault.startswith(f"streamgen/models/dit.py:{line}: ")


def test_the_line_of_the_import_is_told(tmp_path: Path):
    (fault,) = faults(tmp_path, {"models/dit": "\n\n\nfrom streamgen.serving import x\n"})
    assert fault.startswith("streamgen/models/dit.py:4: streamgen.models.dit imports")


def test_the_kernels_are_imported_lazily_by_the_backend(tmp_path: Path):
    source = "def load():\n    import streamgen_kernels.rope\n"
    assert not faults(tmp_path, {"ops/backend": source, "kernels/rope": "import torch"})


@pytest.mark.parametrize(
    "source",
    [
        "import torch",
        "from torch.nn import functional",
        "def f():\n    import torch",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from torch import Tensor",
        "import diffusers",
    ],
)
def test_a_module_without_torch_does_not_name_it(tmp_path: Path, source: str):
    (fault,) = faults(tmp_path, {"scheduling/plan": source})
    assert "streamgen.scheduling.plan must not import" in fault


def test_a_module_without_torch_does_not_reach_it_through_another(tmp_path: Path):
    (fault,) = faults(
        tmp_path,
        {
            "cache/window": "from streamgen.cache.layout import X",
            "cache/layout": "from streamgen.cache.kv import X",
            "cache/kv": "import torch",
        },
    )
    assert "streamgen.cache.layout -> streamgen.cache.kv -> torch" in fault


def test_a_module_without_torch_does_not_reach_it_through_its_package(tmp_path: Path):
    found = faults(tmp_path, {"cache/__init__": "import torch", "cache/window": ""})
    assert found == [
        "streamgen/cache/window.py:1: streamgen.cache.window must not reach torch: "
        "streamgen.cache -> torch"
    ]


def test_names_for_type_checkers_do_not_load_torch(tmp_path: Path):
    assert not faults(
        tmp_path,
        {
            "engine/batch": "import torch",
            "engine/simulated": "from typing import TYPE_CHECKING\n"
            "if TYPE_CHECKING:\n    from streamgen.engine.batch import Batch",
        },
    )


def test_a_circle_inside_a_package_is_named(tmp_path: Path):
    (fault,) = faults(
        tmp_path,
        {
            "engine/a": "from streamgen.engine import b",
            "engine/b": "from streamgen.engine.c import x",
            "engine/c": "def f():\n    from streamgen.engine.a import x",
        },
    )
    assert "circle: streamgen.engine.a -> streamgen.engine.b -> streamgen.engine.c" in fault


def test_the_package_itself_may_offer_what_serving_has(tmp_path: Path):
    serving = {"serving/live": "", "engine/engine": ""}
    lazy = "def __getattr__(name):\n    from streamgen.serving.live import Stream\n"
    assert not faults(tmp_path, {**serving, "__init__": lazy})
    (fault,) = faults(tmp_path, {**serving, "__init__": "from streamgen.engine import engine"})
    assert "may import serving only" in fault


def test_the_program_prints_and_counts(capsys: pytest.CaptureFixture[str]):
    assert check_layers.main() == 0
    assert capsys.readouterr().out == ""
