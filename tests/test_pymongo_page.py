"""docs/pymongo.md names every method that is recorded, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from timetracer.plugins.pymongo import method_rows

PAGE = Path(__file__).parent.parent / "docs" / "pymongo.md"
UNWRAPPED = {"find", "find_raw_batches", "watch"}
CLASSES = ("Collection", "Database", "MongoClient")


def rows_of(name: str) -> set[str]:
    """The methods of a synchronous class that have a row."""
    return {
        row.name
        for row in method_rows()
        if ".synchronous." in row.owner and row.owner.endswith(f":{name}")
    }


def named(name: str) -> set[str]:
    """The methods that the page names for a class."""
    lines = re.findall(rf"^\| {name} \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return {method for line in lines for method in re.findall(r"`(\w+)`", line)}


def test_the_page_names_every_recorded_method() -> None:
    assert {name: named(name) - UNWRAPPED for name in CLASSES} == {
        name: rows_of(name) for name in CLASSES
    }


def test_both_flavours_have_the_same_rows() -> None:
    flavours: dict[str, set[tuple[str, str]]] = {"synchronous": set(), "asynchronous": set()}
    for row in method_rows():
        flavour = row.owner.split(".")[1]
        owner = row.owner.partition(":")[2].removeprefix("Async")
        flavours[flavour].add((owner, row.name))
    assert flavours["synchronous"] == flavours["asynchronous"]
