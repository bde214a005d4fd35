"""What a program can look at of the driver: the same with the plugin on, and with it off again."""

from __future__ import annotations

import pytest

from tests.support.offline import run_program

LOOK = '''
import gc, inspect, importlib, sys
import gridfs.synchronous.grid_file, gridfs.asynchronous.grid_file
import pymongo.results
from pymongo.synchronous.collection import Collection
from pymongo import AsyncMongoClient, MongoClient
from timetracer.plugins import disable_pymongo, enable_pymongo, pymongo as plugin

for row in plugin.method_rows():
    importlib.import_module(row.owner.partition(":")[0])

def places():
    """Every class and module of the driver that is loaded."""
    for name, module in sorted(sys.modules.items()):
        if name.split(".")[0] in ("pymongo", "gridfs", "bson"):
            yield name, module
            for kind in vars(module).values():
                if isinstance(kind, type) and kind.__module__ == name:
                    yield f"{name}:{kind.__qualname__}", kind

def attributes():
    return {name: dict(vars(place)) for name, place in places()}

def differences(before, after):
    return sorted(
        f"{place}.{name}"
        for place in before
        for name in before[place].keys() | after[place].keys()
        if before[place].get(name, "absent") is not after[place].get(name, "absent")
    )

def open_a_session(mode):
    from timetracer import use_cassette
    with use_cassette(sys.argv[1], mode=mode):
        pass
'''


def look(program: str, *arguments: str) -> str:
    return run_program(LOOK + program, *arguments).stdout


@pytest.mark.parametrize("sessions", [0, 1, 2])
def test_disable_leaves_every_attribute_of_the_driver_as_it_was(sessions: int, tmp_path) -> None:
    told = look(
        f'''
before = attributes()
for _ in range(2):
    enable_pymongo()
    enable_pymongo()
    for _ in range({sessions}):
        open_a_session("record")
    patched = differences(before, attributes())
    assert len(patched) > 50, patched
    disable_pymongo()
    disable_pymongo()
    assert differences(before, attributes()) == [], differences(before, attributes())
print("as it was")
''',
        str(tmp_path / "x.json"),
    )
    assert told == "as it was\n"


def test_a_method_looks_the_same_while_the_plugin_is_on(tmp_path) -> None:
    told = look(
        '''
def faces():
    return {
        (row.owner, row.name): (
            str(inspect.signature(method)),
            inspect.iscoroutinefunction(method),
            method.__name__, method.__qualname__, method.__module__, method.__doc__,
            callable(method),
        )
        for row in plugin.method_rows()
        for method in [getattr(plugin.resolve(row.owner), row.name)]
    }

before = faces()
enable_pymongo()
open_a_session("record")
after = faces()
assert after == before, [key for key in before if before[key] != after[key]]
client = MongoClient(connect=False)
items = client.db.items
assert isinstance(items, Collection)
assert inspect.ismethod(items.insert_one) and items.insert_one.__self__ is items
assert items.insert_one.__func__.__name__ == "insert_one"
assert not inspect.iscoroutinefunction(items.insert_one)
assert inspect.iscoroutinefunction(AsyncMongoClient(connect=False).db.items.insert_one)
assert isinstance(vars(MongoClient)["address"], property)
print(len(before), "methods")
''',
        str(tmp_path / "x.json"),
    )
    assert told.endswith("methods\n")


def test_a_method_that_was_taken_before_is_recorded_only_through_the_class(tmp_path) -> None:
    # `from`-like references hold the driver's own function, as with any other patching.
    told = look(
        '''
taken = Collection.find_one
enable_pymongo()
assert Collection.find_one is not taken
assert inspect.unwrap(Collection.find_one) is taken
disable_pymongo()
assert Collection.find_one is taken
print("ok")
''',
        str(tmp_path / "x.json"),
    )
    assert told == "ok\n"


def test_enabling_imports_and_starts_nothing_of_the_program(tmp_path) -> None:
    told = run_program(
        '''
import sys, threading
from timetracer.plugins import enable_pymongo
enable_pymongo()
print(sorted({name for name in sys.modules if name.split(".")[0] in ("motor", "flask", "pytest")}))
print(threading.active_count())
'''
    ).stdout
    assert told == "[]\n1\n"


def test_arguments_are_never_copied_or_altered_on_their_way(tmp_path) -> None:
    told = look(
        '''
import copy
from bson.son import SON
seen = []
original = Collection.insert_one
def insert_one(self, document, **options):
    seen.append(document)
    return pymongo.results.InsertOneResult(document.setdefault("_id", 1), True)
Collection.insert_one = insert_one
enable_pymongo()
from timetracer import use_cassette
given = {"a": [1, SON([("b", 2)])], 3: object()}
with use_cassette(sys.argv[1], mode="record"):
    MongoClient(connect=False).db.items.insert_one(given)
assert seen[0] is given
disable_pymongo()
assert vars(Collection)["insert_one"] is insert_one
print("the very object")
''',
        str(tmp_path / "x.json"),
    )
    assert told == "the very object\n"
