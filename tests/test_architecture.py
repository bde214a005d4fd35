"""The house's plan holds: imports run downhill only, and the plan's page names every module."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "timetracer"
PAGE = ROOT / "docs" / "architecture.md"

FLOORS = {
    "errors": 1,
    "model": 1,
    "driver": 1,
    "codec": 2,
    "config": 2,
    "matching": 2,
    "volatile": 2,
    "bindings": 2,
    "surroundings": 2,
    "relatives": 2,
    "evidence": 2,
    "alike": 2,
    "comparisons": 2,
    "matchers": 2,
    "nearest": 2,
    "call_sites": 2,
    "entropy": 2,
    "frozen_time": 2,
    "redaction": 2,
    "naming": 2,
    "claims": 2,
    "runs": 2,
    "aside": 2,
    "stores": 2,
    "shared_parts": 2,
    "document": 3,
    "recovery": 3,
    "takes": 3,
    "learned": 3,
    "cassette": 3,
    "ambient": 3,
    "missed": 3,
    "ledger": 3,
    "session": 4,
    "opening": 4,
    "process": 4,
    "blocks": 4,
    "pairing": 4,
    "comparing": 4,
    "lessons": 4,
    "learning": 4,
    "rehearsals": 4,
    "intercept": 5,
    "plugins": 6,
    "integrations": 7,
    "cli": 7,
    "__main__": 7,
    "viewer": 7,
    "": 8,
}
"""Each module's or subpackage's floor; "" is the package itself, the public face above them all."""

ONLY_IN = {
    "wrapt": ("intercept",),
    "secantus": (),
    "mongomock": (),
}
"""Packages that only these modules may import."""

PROHIBITED = {
    "a path of somebody's machine": r"(?<![\w.~-])/(work|root|home|Users)/",
    "a path outside the checkout": r"\.\./(shared|\w+/shared)",
    "the number of an issue": r"(?i)\bissue #?\d",
    "unfinished work": r"\b(TODO|FIXME|XXX)\b",
}
"""What a reader of the product cannot follow, with the pattern that finds it."""

FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(file: Path) -> str:
    """The module's name below the package: "codec", "stores.files", "stores", ""."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module_of(file) for file in FILES}
by_module = pytest.mark.parametrize("file", FILES, ids=lambda file: module_of(file) or "timetracer")


def floor_of(module: str) -> int:
    house = module.split(".")[0]
    assert house in FLOORS, f"timetracer.{house} has no floor: give it one in FLOORS and the page"
    return FLOORS[house]


def imported_names(file: Path) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of each import, those under TYPE_CHECKING and in functions too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = absolute_base(file, node)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def absolute_base(file: Path, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = file.relative_to(ROOT).parent.parts
    parts = [*package[: len(package) - node.level + 1], node.module or ""]
    return ".".join(part for part in parts if part)


def own_module(name: str) -> str | None:
    """Which module of the package an imported name comes from, None for another package's."""
    parts = name.split(".")
    if parts[0] != "timetracer":
        return None
    while ".".join(parts[1:]) not in MODULES | {*FLOORS}:
        parts.pop()
    return ".".join(parts[1:])


@by_module
def test_imports_run_downhill_only(file: Path) -> None:
    module = module_of(file)
    uphill = [
        f"{file.relative_to(ROOT)}:{line} imports {name} "
        f"(floor {floor_of(target)}) from floor {floor_of(module)}"
        for line, name in imported_names(file)
        if (target := own_module(name)) is not None and floor_of(target) > floor_of(module)
    ]
    assert not uphill, "\n".join(uphill)


@by_module
def test_a_package_with_one_home_is_imported_there_only(file: Path) -> None:
    astray = [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for line, name in imported_names(file)
        if module_of(file) not in ONLY_IN.get(name.split(".")[0], (module_of(file),))
    ]
    assert not astray, "\n".join(astray)


@by_module
def test_nothing_is_printed(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    lines = [node.lineno for node in calls if ast.unparse(node.func) == "print"]
    assert not lines, f"{file.relative_to(ROOT)} prints in lines {lines}; use logging"


@by_module
@pytest.mark.parametrize("what", PROHIBITED)
def test_the_source_speaks_to_its_reader_only(file: Path, what: str) -> None:
    found = re.search(PROHIBITED[what], file.read_text(encoding="utf-8"))
    assert not found, f"{file.relative_to(ROOT)} has {what}: {found and found.group()!r}"


@by_module
def test_a_file_opens_with_its_idea(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    assert not tree.body or ast.get_docstring(tree), f"{file.relative_to(ROOT)} has no docstring"


@pytest.mark.parametrize("module", sorted(MODULES - {""}))
def test_the_architecture_page_names_every_module(module: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    name = r"[./]".join(map(re.escape, module.split(".")))
    assert re.search(rf"(?<![\w.]){name}(?!\w)", page), f"docs/architecture.md lacks {module}"


def test_the_page_and_the_table_agree_on_every_floor() -> None:
    rows = re.findall(r"^\| *(\d) *\| *([^|]+)\|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    on_page = {
        house: int(floor) for floor, names in rows for house in re.findall(r"\b[a-z_]+", names)
    }
    there = {module.split(".")[0] for module in MODULES - {""}}
    assert {house: on_page.get(house) for house in there} == {
        house: FLOORS[house] for house in there
    }
