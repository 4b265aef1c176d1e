"""Checks who imports whom: the floors of the design, by reading the source and running nothing.

    7  client      talks to a server; knows its messages
    7  apps        imports serving and config only (and what lies on floor 0)
    6  serving     only serving.build, serving.memory and serving.model_files read config
    5  engine
    4  models
    3  cache       parallel
    2  ops         diffusion     scheduling     media
    1  config      metrics
    0  types       errors        clock
       kernels     imported by ops.backend only, inside a function; imports nothing of streamgen

A module imports only from floors below its own; neighbours do not import each other; inside one
package there is no circle; modules without torch reach it on no way. Imports for type checkers
and inside functions count like all others. Prints `path:line: what is wrong`; exit code 1 if any.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

FLOORS = {
    name: floor
    for floor, names in enumerate(
        (
            ("types", "errors", "clock"),
            ("config", "metrics"),
            ("ops", "diffusion", "scheduling", "media"),
            ("cache", "parallel"),
            ("models",),
            ("engine",),
            ("serving",),
            ("client",),
        )
    )
    for name in names
}
READS_CONFIG = (
    "streamgen.serving.build",  # and what it must know before it builds
    "streamgen.serving.cache_policy",
    "streamgen.serving.cards",
    "streamgen.serving.memory",
    "streamgen.serving.model_files",
    "streamgen.serving.speed",
    "streamgen.serving.stages",
)
LOADS_KERNELS = "streamgen.ops.backend"
APPS_MAY_IMPORT = ("serving", "config", "types", "errors", "clock")

TORCH_FREE = (
    "streamgen.types",
    "streamgen.errors",
    "streamgen.clock",
    "streamgen.config",
    "streamgen.metrics",
    "streamgen.scheduling",
    "streamgen.media",
    "streamgen.cache.context",
    "streamgen.cache.joint",
    "streamgen.cache.placement",
    "streamgen.cache.policies",
    "streamgen.cache.window",
    "streamgen.cache.rows",
    "streamgen.engine.simulated",
    "streamgen.serving.controls",
    "streamgen.serving.gateway.messages",
    "streamgen.serving.gateway.bodies",
    "streamgen.client",
)
TORCH_PACKAGES = (
    "torch",
    "torchvision",
    "torchao",
    "torch_tensorrt",
    "triton",
    "xformers",
    "diffusers",
    "transformers",
    "accelerate",
    "streamgen_kernels",
)


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module; `is_run` if importing the importer runs it."""

    target: str
    line: int
    is_run: bool
    is_lazy: bool  # inside a function


@dataclass(frozen=True, slots=True)
class Module:
    name: str
    path: Path
    imports: tuple[Import, ...]

    @property
    def package(self) -> str:
        """The floor's name, such as "cache"; empty for streamgen/__init__.py itself."""
        return [*self.name.split("."), ""][1]


@dataclass(frozen=True, slots=True)
class Offence:
    path: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


def check_tree(root: Path) -> list[Offence]:
    """All offences in streamgen/, kernels/ and apps/ below `root`, by path and line."""
    modules = read_modules(root)
    offences = [
        Offence(module.path, imported.line, text)
        for module in modules.values()
        for imported in module.imports
        if (text := _fault(module, imported)) is not None
    ]
    offences.extend(_homeless(modules))
    offences.extend(_torch_offences(modules))
    offences.extend(_circles(modules))
    return sorted(set(offences), key=lambda offence: (str(offence.path), offence.line))


def read_modules(root: Path) -> dict[str, Module]:
    """Every module below the three source folders, by its name."""
    paths = {
        _module_name(path.relative_to(base)): path
        for base, package in (
            (root, "streamgen"),
            (root / "kernels", "streamgen_kernels"),
            (root / "apps", "streamgen_apps"),
        )
        for path in sorted((base / package).rglob("*.py"))
    }
    known = {*paths, *(parent for name in paths for parent in _parents(name))}
    return {
        name: Module(name, path.relative_to(root), tuple(_imports(name, path, known)))
        for name, path in paths.items()
    }


def _module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(name: str, path: Path, known: Set[str]) -> Iterator[Import]:
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node, is_typing, is_lazy in _statements(tree.body, False, False):
        for target in _targets(node, package, known):
            yield Import(target, node.lineno, not is_typing and not is_lazy, is_lazy)


def _statements(
    body: Iterable[ast.AST], is_typing: bool, is_lazy: bool
) -> Iterator[tuple[ast.stmt, bool, bool]]:
    """Every import statement, whether it is for type checkers only, whether in a function."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, is_typing, is_lazy
        elif isinstance(node, ast.If) and _is_type_checking(node.test):
            yield from _statements(node.body, True, is_lazy)
            yield from _statements(node.orelse, is_typing, is_lazy)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _statements(ast.iter_child_nodes(node), is_typing, True)
        else:
            yield from _statements(ast.iter_child_nodes(node), is_typing, is_lazy)


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _targets(node: ast.stmt, package: str, known: Set[str]) -> Iterator[str]:
    """The modules a statement names; of `from a import b` it is a.b where that is a module."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, *filter(None, [base])])
        for alias in node.names:
            whole = f"{base}.{alias.name}"
            yield whole if whole in known else base


def _fault(module: Module, imported: Import) -> str | None:
    """What is wrong with one import as to floors, in words; None if nothing."""
    root = module.name.split(".")[0]
    target_root, _, rest = imported.target.partition(".")
    target = rest.split(".")[0]
    if target_root == "streamgen_apps" and root != "streamgen_apps":
        return f"{module.name} imports {imported.target}: nobody imports apps"
    if target_root == "streamgen_kernels" and root != "streamgen_kernels":
        if module.name != LOADS_KERNELS:
            return f"{module.name} imports {imported.target}: only {LOADS_KERNELS} may"
        return None if imported.is_lazy else f"{imported.target} must be imported in a function"
    if target_root != "streamgen":
        return None
    if root == "streamgen_kernels":
        return f"{module.name} imports {imported.target}: kernels import nothing of streamgen"
    if root == "streamgen_apps":
        if target in ("", *APPS_MAY_IMPORT):
            return None
        return f"{module.name} imports {imported.target}: apps import serving and config only"
    return _floor_fault(module, imported.target, target)


def _homeless(modules: Mapping[str, Module]) -> Iterator[Offence]:
    """The first module of each package of streamgen that has no floor."""
    inside = (module for module in modules.values() if module.name.startswith("streamgen."))
    first = {module.package: module for module in reversed(list(inside))}
    for package in first.keys() - FLOORS.keys():
        text = f"{package} has no floor; give it one in scripts/check_layers.py"
        yield Offence(first[package].path, 1, text)


def _floor_fault(module: Module, whole_target: str, target: str) -> str | None:
    """The same between two modules of streamgen; the package itself stands where serving does."""
    says = f"{module.name} imports {whole_target}"
    own = module.package
    if own == target or (own == "" and target == "serving"):
        return None
    if target == "":
        return f"{says}: it stands above all floors; import from the module itself"
    if own == "":
        return f"{says}: streamgen/__init__.py may import serving only"
    if target not in FLOORS:
        return f"{says}: there is no such package"
    if own not in FLOORS:
        return None
    if FLOORS[own] == FLOORS[target]:
        return f"{says}: {own} and {target} are neighbours on floor {FLOORS[own]}"
    if FLOORS[own] < FLOORS[target]:
        return f"{says}: {own} (floor {FLOORS[own]}) is below {target} (floor {FLOORS[target]})"
    if target == "config" and module.name not in READS_CONFIG:
        return f"{says}: only {READS_CONFIG[0]} reads config; take the numbers through __init__"
    return None


def _torch_offences(modules: Mapping[str, Module]) -> Iterator[Offence]:
    """Modules without torch that name it, or that load a module which loads it."""
    for module in modules.values():
        if not _is_under(module.name, TORCH_FREE):
            continue
        for imported in module.imports:
            if _is_under(imported.target, TORCH_PACKAGES):
                text = f"{module.name} must not import {imported.target}"
                yield Offence(module.path, imported.line, text)
            elif imported.is_run and (way := _way_to_torch(imported.target, modules)):
                text = f"{module.name} must not reach torch: {' -> '.join(way)}"
                yield Offence(module.path, imported.line, text)
        for parent in _parents(module.name):
            if way := _way_to_torch(parent, modules):
                text = f"{module.name} must not reach torch: {' -> '.join(way)}"
                yield Offence(module.path, 1, text)


def _way_to_torch(name: str, modules: Mapping[str, Module]) -> list[str]:
    """The imports by which loading `name` loads torch; empty if it does not."""
    visited: set[str] = set()
    ways = [[name]]
    while ways:
        way = ways.pop()
        last = way[-1]
        if _is_under(last, TORCH_PACKAGES):
            return way
        if last in visited:
            continue
        visited.add(last)
        loaded = _parents(last)
        if last in modules:
            loaded += [imported.target for imported in modules[last].imports if imported.is_run]
        ways.extend([*way, module] for module in loaded)
    return []


def _parents(name: str) -> list[str]:
    """The packages whose __init__.py runs before the module does."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def _circles(modules: Mapping[str, Module]) -> Iterator[Offence]:
    """One offence for each import that closes a circle, found depth first."""
    done: set[str] = set()

    def visit(module: Module, way: tuple[str, ...]) -> Iterator[Offence]:
        for imported in module.imports:
            if imported.target in way:
                circle = (*way[way.index(imported.target) :], imported.target)
                yield Offence(module.path, imported.line, f"circle: {' -> '.join(circle)}")
            elif imported.target in modules and imported.target not in done:
                yield from visit(modules[imported.target], (*way, imported.target))
        done.add(module.name)

    for module in modules.values():
        if module.name not in done:
            yield from visit(module, (module.name,))


def _is_under(name: str, packages: Iterable[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def main() -> int:
    """Check the tree that this file is in."""
    root = Path(__file__).resolve().parents[1]
    offences = check_tree(root)
    for offence in offences:
        print(offence)
    return 1 if offences else 0


if __name__ == "__main__":
    sys.exit(main())
