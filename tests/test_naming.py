"""Names: readable, safe on every system, and different for different requests."""

from __future__ import annotations

import re
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timetracer.naming import (
    TEMPLATE_FIELDS,
    UNIQUE_TEMPLATE,
    VOLATILE_FIELDS,
    check_template,
    parse_take,
    request_stem,
    safe_stem,
    script_stem,
    take_name,
    template_fields,
)

HASH = r"-[0-9a-f]{8}"


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/users/123", "GET__users_123"),
        ("GET", "/", "GET__"),
        ("POST", "/v1/orders", "POST__v1_orders"),
        ("GET", "/a.b-c/d.json", "GET__a.b-c_d.json"),
        ("GET", "//a", "GET___a"),
    ],
)
def test_a_request_that_loses_nothing_has_a_plain_name(
    method: str, path: str, expected: str
) -> None:
    assert request_stem(method, path) == expected


@pytest.mark.parametrize(
    ("method", "path", "query", "plain"),
    [
        ("GET", "/users", "page=2", "GET__users"),
        ("GET", "/a_b", "", "GET__a_b"),
        ("GET", "/users/", "", "GET__users_"),
        ("GET", "/Users", "", "GET__Users"),
        ("GET", "/caf\u00e9", "", "GET__caf-"),
        ("GET", "/a b", "", "GET__a-b"),
        ("GET", "/a%20b", "", "GET__a-20b"),
        ("GET", "", "", "GET__"),
        ("OPTIONS", "*", "", "OPTIONS__-"),
        ("get", "/users", "", "GET__users"),
        ("X/Y", "/users", "", "X_Y__users"),
        ("GET", "/users.", "", "GET__users"),
        ("GET", "/users.2", "", "GET__users.2"),
        ("GET", "/users-0123abcd", "", "GET__users-0123abcd"),
        ("GET", "/\ud800\n\0", "", "GET__---"),
        ("GET", "/" + "x" * 200, "", "GET__" + "x" * 106),
    ],
)
def test_a_request_that_loses_something_has_a_hash(
    method: str, path: str, query: str, plain: str
) -> None:
    stem = request_stem(method, path, query)

    assert re.fullmatch(re.escape(plain) + HASH, stem)
    assert len(stem) <= 120


def test_hashes_are_the_same_in_every_process_and_version() -> None:
    assert request_stem("GET", "/users", "page=2") == "GET__users-90e6de2d"
    assert request_stem("GET", "/caf\u00e9") == "GET__caf--aa4d54d0"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("GET", "/a/b", ""), ("GET", "/a_b", "")),
        (("GET", "/a", ""), ("GET", "/a/", "")),
        (("GET", "/a", ""), ("GET", "/A", "")),
        (("GET", "/a", "x=1"), ("GET", "/a", "x=2")),
        (("GET", "/" + "x" * 200, ""), ("GET", "/" + "x" * 201, "")),
        (("GET", "", ""), ("GET", "/", "")),
        (("GET", "/ax", "y"), ("GET", "/a", "xy")),
    ],
)
def test_different_requests_differ_on_any_file_system(
    one: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    assert request_stem(*one).lower() != request_stem(*other).lower()


def test_a_name_is_no_take_and_no_hash_of_another() -> None:
    hashed = request_stem("GET", "/a", "x=1").removeprefix("GET__")

    assert request_stem("GET", f"/{hashed}") != f"GET__{hashed}"
    assert take_name(request_stem("GET", "/a"), 2, ".json") != take_name(
        request_stem("GET", "/a.2"), 1, ".json"
    )


PATHS = st.text(alphabet="aA/_.-2\u00e9 %\\:") | st.text()


@given(
    st.lists(
        st.tuples(st.sampled_from(["GET", "get", "POST"]), PATHS, st.sampled_from(["", "a", "A"])),
        min_size=2,
        max_size=20,
        unique=True,
    ),
    st.sampled_from([None, "{path}/{method}", "{service}/x{route}", "{date}"]),
)
def test_names_of_any_requests_are_safe_and_differ(
    requests: list[tuple[str, str, str]], template: str | None
) -> None:
    stems = [request_stem(*one, template=template, route=one[1], service="..") for one in requests]

    assert len({stem.lower() for stem in stems}) == len(stems)
    for stem in stems:
        assert re.fullmatch(r"[A-Za-z0-9._/-]+", stem)
        for part in stem.split("/"):
            assert 0 < len(part) <= 120
            assert not part.endswith(".")


@pytest.mark.parametrize(
    ("template", "fields", "expected"),
    [
        ("{service}/{method}__{path}", {"service": "shop"}, "shop/GET__users_1"),
        ("{service}/{method}__{path}", {}, "no-service/GET__users_1"),
        ("{service}/{method}__{path}", {"service": "../.."}, r"\.\._/GET__users_1" + HASH),
        ("{service}/{method}__{path}", {"service": "con"}, "_con/GET__users_1" + HASH),
        ("{service}/{method}__{path}", {"service": "a/b"}, "a_b/GET__users_1"),
        ("{date}/{path}", {"date": "2026-11-21"}, "2026-11-21/users_1" + HASH),
        ("{method}{route}", {"route": "/users/<id>"}, "GET_users_-id-" + HASH),
        ("{path}/{method}", {}, "users_1/GET"),
        (
            UNIQUE_TEMPLATE,
            {"date": "2026-11-21", "time": "133728", "id": "ab12"},
            "GET__users_1__2026-11-21_133728_ab12",
        ),
    ],
)
def test_templates(template: str, fields: dict[str, Any], expected: str) -> None:
    stem = request_stem("GET", "/users/1", template=check_template(template), **fields)

    assert re.fullmatch(expected, stem)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{pat}", "{pat} is not one of {method} {path}"),
        ("{path!r}", "without a format"),
        ("{path:>9}", "without a format"),
        ("{path.name}", "{path.name} is not one of"),
        ("{}", "{} is not one of"),
        ("{path", "expected '}' before end of string"),
        ("/{path}", "an empty part"),
        ("{path}/", "an empty part"),
        ("", "an empty part"),
        ("../{path}", "leads out of the directory"),
        ("a/../{path}", "leads out of the directory"),
        ("{path} {method}", "more than letters, digits"),
        ("C:{path}", "more than letters, digits"),
        ("a\\{path}", "more than letters, digits"),
        ("{{path}}", "more than letters, digits"),
        ("{path}.json", "the suffix is added to it"),
        ("{path}.json.gz", "the suffix is added to it"),
    ],
)
def test_a_bad_template_says_why(template: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        check_template(template)


def test_every_field_of_the_table_can_be_used() -> None:
    template = "_".join(f"{{{name}}}" for name in TEMPLATE_FIELDS)

    assert template_fields(check_template(template)) == set(TEMPLATE_FIELDS)
    assert set(TEMPLATE_FIELDS) >= VOLATILE_FIELDS


@pytest.mark.parametrize(
    ("stem", "take", "suffix", "name"),
    [
        ("GET__users", 1, ".json", "GET__users.json"),
        ("GET__users", 2, ".json", "GET__users.2.json"),
        ("sub/GET__users", 10, ".json.gz", "sub/GET__users.10.json.gz"),
        ("a.1", 1, ".json", "a.1.json"),
        ("a.json", 1, ".json", "a.json.json"),
    ],
)
def test_takes(stem: str, take: int, suffix: str, name: str) -> None:
    assert take_name(stem, take, suffix) == name
    assert parse_take(name) == (stem, take, suffix)


@pytest.mark.parametrize("name", ["a.txt", ".json", "a.json.partial", "a", ""])
def test_other_names_are_no_takes(name: str) -> None:
    assert parse_take(name) is None


def test_takes_are_counted_from_one() -> None:
    with pytest.raises(ValueError, match="from 1, not 0"):
        take_name("a", 0, ".json")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("test_get_user", "test_get_user"),
        ("TestUsers.test_get-1", "TestUsers.test_get-1"),
        ("test_a[x/y z]", r"test_a-x_y-z-" + HASH),
        ("a/b", "a_b" + HASH),
        ("..", "_" + HASH),
        ("nul.txt", "_nul.txt" + HASH),
        ("COM1", "_COM1" + HASH),
        ("console", "console"),
        ("a.2", r"a\.2" + HASH),
        ("", "_" + HASH),
        ("x" * 500, "x" * 111 + HASH),
    ],
)
def test_stems_of_any_text(text: str, expected: str) -> None:
    assert re.fullmatch(expected, safe_stem(text))


def main_module(spec_name: str | None) -> ModuleType:
    module = ModuleType("__main__")
    module.__spec__ = None if spec_name is None else ModuleSpec(spec_name, None)
    return module


@pytest.mark.parametrize(
    ("argv0", "spec_name", "expected"),
    [
        ("etl_script.py", None, "etl_script"),
        ("/opt/jobs/etl_script.py", None, "etl_script"),
        ("/usr/bin/flask", None, "flask"),
        ("C-Scripts/flask-script.py", None, "flask"),
        ("/site-packages/pkg/__main__.py", "pkg.__main__", "pkg"),
        ("/site-packages/pkg/tool.py", "pkg.tool", "pkg.tool"),
        ("/site-packages/pkg/__main__.py", None, "pkg"),
        ("app.pyz", "__main__", "app"),
        ("-c", None, "python"),
        ("-m", None, "python"),
        ("-", None, "python"),
        ("", None, "python"),
        ("/", None, "python"),
        ("my script.py", None, "my-script" + HASH),
    ],
)
def test_the_name_of_a_program(argv0: str, spec_name: str | None, expected: str) -> None:
    assert re.fullmatch(expected, script_stem(argv0, main_module(spec_name)))


def test_a_program_without_a_main_module() -> None:
    assert script_stem("jobs/etl.py", None) == "etl"
