"""The WSGI middleware: a session for each request, and every byte as the application made it."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.http import driver_call, environ_of, plain, serve
from timetracer import ConfigError, MissError, TraceConfig, process, session, use_cassette
from timetracer.integrations.bodies import BodyCopy
from timetracer.integrations.wsgi import TimeTracerMiddleware
from timetracer.redaction import Redactor

pytestmark = pytest.mark.usefixtures("own_process_session")


@pytest.fixture
def traced(cassettes: Path) -> Any:
    """Wraps an application: traced(app, "record", **settings)."""

    def wrap(app: Any, mode: str, **settings: Any) -> TimeTracerMiddleware:
        config = TraceConfig(mode=mode, cassette_dir=cassettes, **settings)
        return TimeTracerMiddleware(app, config)

    return wrap


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*")) if directory.exists() else []


def load(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_bytes())
    return document


def no_server() -> Any:
    raise AssertionError("a call was made in replay")


def current_is_request() -> bool:
    state = session.CURRENT.get()
    return isinstance(state, session.Session)


# ------------------------------------------------------------------------------- record, replay


def test_a_request_is_recorded_and_replayed(traced: Any, cassettes: Path) -> None:
    live = traced(plain(lambda e: driver_call(1, lambda: "tea")), "record")
    assert serve(live, "GET", "/users/123").body == b"tea"
    assert names(cassettes) == ["GET__users_123.json"]
    again = traced(plain(lambda e: driver_call(1, no_server)), "replay")
    assert serve(again, "GET", "/users/123").body == b"tea"


def test_request_and_response_are_kept(traced: Any, cassettes: Path) -> None:
    app = traced(plain(lambda e: driver_call(1)), "record")
    serve(app, "GET", "/users/%C3%A4?page=2", HTTP_USER_AGENT="curl", SCRIPT_NAME="/shop")
    document = load(next(cassettes.iterdir()))
    assert document["request"] == {
        "method": "GET",
        "path": "/shop/users/ä",
        "query": "page=2",
        "route": None,
        "headers": [["host", "localhost"], ["user-agent", "curl"]],
        "body": None,
        "body_hash": "",
    }
    response = document["response"]
    assert response.pop("duration_ms") >= 0
    assert response == {
        "status": 200,
        "headers": [["content-type", "text/plain"], ["content-length", "4"]],
        "body": "live",
        "error": None,
    }


def test_a_request_without_driver_calls_writes_no_file_and_needs_none(
    traced: Any, cassettes: Path
) -> None:
    for mode in ("record", "replay", "once", "new_episodes"):
        assert serve(traced(plain(lambda e: "hi"), mode), "GET", "/").body == b"hi"
    assert names(cassettes) == []


def test_off_is_straight_through(traced: Any, cassettes: Path) -> None:
    result = [b"x"]
    app = traced(lambda environ, start_response: result, "off")
    environ = environ_of("GET", "/")
    assert app(environ, lambda *_: None) is result
    assert set(environ) == set(environ_of("GET", "/"))


def test_off_in_the_environment_counts_more_than_an_argument(
    traced: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIMETRACER_MODE", "off")
    assert not traced(plain(lambda e: 1), "record").active


def test_a_bad_setting_is_an_error_at_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMETRACER_MODE", "recrod")
    with pytest.raises(ConfigError, match="Did you mean record"):
        TimeTracerMiddleware(plain(lambda e: 1))


def test_one_request_is_traced_once(traced: Any, cassettes: Path, tmp_path: Path) -> None:
    inner = TraceConfig(mode="record", cassette_dir=tmp_path / "inner")
    app = traced(TimeTracerMiddleware(plain(lambda e: driver_call(1)), inner), "record")
    serve(app, "GET", "/")
    assert names(tmp_path / "inner") == []
    assert names(cassettes) == ["GET__.json"]
    assert len(load(cassettes / "GET__.json")["events"]) == 1


def test_calls_at_start_up_follow_the_settings_of_the_middleware(
    traced: Any, cassettes: Path
) -> None:
    traced(plain(lambda e: 1), "record")
    driver_call("at start-up")
    process.reset_process()
    [name] = names(cassettes)
    assert not name.startswith("GET")
    assert len(load(cassettes / name)["events"]) == 1


def test_the_named_cassette_answers_every_request(traced: Any, tmp_path: Path) -> None:
    path = tmp_path / "the one.json"
    serve(traced(plain(lambda e: driver_call(1)), "record", cassette=path), "GET", "/users/123")
    again = traced(plain(lambda e: driver_call(1, no_server)), "replay", cassette=path)
    for request in ("/users/123", "/elsewhere", "/users/123"):
        assert serve(again, "GET", request).body == b"live"


# ------------------------------------------------------------------------------- takes


def counting_app() -> Any:
    count = iter(range(1, 100))

    def call(environ: dict[str, Any]) -> Any:
        environ["wsgi.input"].read()
        return driver_call(1, lambda: f"answer {next(count)}")

    return plain(call)


def test_equal_requests_are_takes_served_in_order_then_the_last(
    traced: Any, cassettes: Path
) -> None:
    app = traced(counting_app(), "record")
    for _ in range(3):
        serve(app, "GET", "/users")
    assert names(cassettes) == ["GET__users.2.json", "GET__users.3.json", "GET__users.json"]
    again = traced(counting_app(), "replay")
    answers = [serve(again, "GET", "/users").body for _ in range(4)]
    assert answers == [b"answer 1", b"answer 2", b"answer 3", b"answer 3"]


JSON = {"CONTENT_TYPE": "application/json"}
FORM = {"CONTENT_TYPE": "application/x-www-form-urlencoded"}


def multipart(boundary: str, name: str) -> bytes:
    return (
        f'--{boundary}\r\nContent-Disposition: form-data; name="who"\r\n\r\n{name}\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="password"\r\n\r\nhunter2\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="cv"; filename="a.bin"\r\n'
        f"Content-Type: application/octet-stream\r\n\r\n\x00\x01{name}\r\n--{boundary}--\r\n"
    ).encode()


@pytest.mark.parametrize(
    ("bodies", "again"),
    [
        (((b'{"n": 1}', JSON), (b'{"n": 2}', JSON)), ((b'{"n":2}', JSON), (b'{"n":1}', JSON))),
        (((b"n=1", FORM), (b"n=2", FORM)), ((b"n=2", FORM), (b"n=1", FORM))),
        (((b"\x00\x01", {}), (b"\x00\x02", {})), ((b"\x00\x02", {}), (b"\x00\x01", {}))),
        (
            tuple(
                (multipart("one", who), {"CONTENT_TYPE": "multipart/form-data; boundary=one"})
                for who in ("ann", "bob")
            ),
            tuple(
                (multipart("two", who), {"CONTENT_TYPE": "multipart/form-data; boundary=two"})
                for who in ("bob", "ann")
            ),
        ),
    ],
    ids=["JSON", "form", "bytes", "multipart"],
)
def test_the_body_selects_the_take(
    traced: Any, cassettes: Path, bodies: Any, again: Any
) -> None:
    app = traced(counting_app(), "record")
    for body, extra in bodies:
        serve(app, "POST", "/users", body, **extra)
    replay = traced(counting_app(), "replay")
    answers = [serve(replay, "POST", "/users", body, **extra).body for body, extra in again]
    assert answers == [b"answer 2", b"answer 1"]


@pytest.mark.parametrize("mode", ["record", "replay"])
@pytest.mark.parametrize("limit", [4, 100])
def test_the_application_reads_its_body_as_it_came(traced: Any, mode: str, limit: int) -> None:
    seen: list[Any] = []

    def read(environ: dict[str, Any]) -> str:
        stream = environ["wsgi.input"]
        buffer = bytearray(2)
        seen.extend((stream.read(3), stream.readline(), stream.readline(1)))
        seen.extend((stream.readinto(buffer), bytes(buffer), stream.readlines(1)))
        seen.extend((list(stream), stream.read()))
        return "ok"

    body = b"one\ntwo\nthree\nfour\n"
    serve(traced(plain(read), mode, max_request_body=limit), "POST", "/", body)
    assert seen == [b"one", b"\n", b"t", 2, b"wo", [b"\n"], [b"three\n", b"four\n"], b""]


def test_a_body_is_not_read_before_the_application_asks_when_recording(traced: Any) -> None:
    class Watched(io.BytesIO):
        def read(self, *size: Any) -> bytes:
            raise AssertionError("nobody asked")

    app = traced(plain(lambda e: driver_call(1)), "record")
    assert serve(app, "POST", "/", b"x", **{"wsgi.input": Watched(b"x")}).status == 200


def test_a_body_that_the_application_left_has_no_hash(traced: Any, cassettes: Path) -> None:
    app = traced(plain(lambda e: driver_call(e["wsgi.input"].read(1))), "record")
    serve(app, "POST", "/", b"xy")
    request = load(cassettes / "POST__.json")["request"]
    assert request["body_hash"] == ""


@pytest.mark.parametrize(
    ("body", "extra", "kept"),
    [
        (b'{"a": [1, null]}', JSON, {"a": [1, None]}),
        (b'{"a": 1}', FORM, {"a": 1}),
        (b"{broken", JSON, "{broken"),
        (b"a=1&b=x+y&b=&c=%C3%A4", FORM, {"a": "1", "b": ["x y", ""], "c": "ä"}),
        ("schön".encode("latin-1"), {"CONTENT_TYPE": "text/plain; charset=latin-1"}, "schön"),
        (
            b"\x89PNG\x00",
            {"CONTENT_TYPE": "image/png"},
            {"$body": {"length": 5, "content_type": "image/png", "omitted": "binary"}},
        ),
        (
            b"12 bytes, gz",
            {**JSON, "HTTP_CONTENT_ENCODING": "gzip"},
            {
                "$body": {
                    "length": 12,
                    "content_type": "application/json",
                    "truncated": True,
                    "omitted": "gzip",
                }
            },
        ),
        (
            b"line one\nline two" + b"." * 100,
            {"CONTENT_TYPE": "text/plain"},
            {
                "$body": {
                    "length": 117,
                    "content_type": "text/plain",
                    "truncated": True,
                    "text": "line one\n",
                }
            },
        ),
        (
            b'{"password": "hunter2", "x": "' + b"." * 100 + b'"}',
            JSON,
            {"$body": {"length": 132, "content_type": "application/json", "truncated": True}},
        ),
    ],
)
def test_how_a_body_is_kept(
    traced: Any, cassettes: Path, body: bytes, extra: dict[str, str], kept: Any
) -> None:
    def echo(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        data = environ["wsgi.input"].read()
        driver_call(1)
        headers = [("Content-Type", extra["CONTENT_TYPE"])]
        if "HTTP_CONTENT_ENCODING" in extra:
            headers.append(("Content-Encoding", "gzip"))
        start_response("200 OK", headers)
        return [data[:5], data[5:]]

    app = traced(echo, "record", max_request_body=64, max_response_body=64)
    assert serve(app, "POST", "/", body, **extra).body == body
    document = load(cassettes / "POST__.json")
    assert document["request"]["body"] == kept
    assert document["response"]["body"] == kept


def test_a_form_with_files_is_kept_by_field(traced: Any, cassettes: Path) -> None:
    content_type = "multipart/form-data; boundary=b"
    app = traced(counting_app(), "record")
    serve(app, "POST", "/", multipart("b", "ann"), CONTENT_TYPE=content_type)
    text = (cassettes / "POST__.json").read_text(encoding="utf-8")
    body = json.loads(text)["request"]["body"]
    assert body["who"] == "ann"
    assert body["password"] == "[redacted:1]"
    assert body["cv"]["filename"] == "a.bin"
    assert body["cv"]["length"] == 5
    assert "hunter2" not in text


def test_deep_json_does_not_cost_the_recording(traced: Any, cassettes: Path) -> None:
    deep = b"[" * 900 + b"]" * 900
    serve(traced(counting_app(), "record"), "POST", "/", deep, **JSON)
    body = load(cassettes / "POST__.json")["request"]["body"]
    assert body["$body"]["length"] == 1800


def test_no_secret_of_a_request_or_response_is_written(traced: Any, cassettes: Path) -> None:
    def login(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environ["wsgi.input"].read()
        driver_call(1)
        headers = [("Content-Type", "application/json"), ("Set-Cookie", "session=planted4; Path=/")]
        start_response("200 OK", headers)
        return [b'{"access_token": "planted5"}']

    app = traced(login, "record")
    serve(
        app,
        "POST",
        "/login?api_key=planted1",
        b"user=ada&password=planted2",
        HTTP_AUTHORIZATION="Bearer planted3",
        HTTP_COOKIE="session=planted6",
        **FORM,
    )
    [path] = cassettes.iterdir()
    assert "planted" not in path.name + path.read_text(encoding="utf-8")
    assert load(path)["request"]["body"]["user"] == "ada"


def test_the_hash_of_a_body_does_not_tell_its_secrets() -> None:
    def digest(body: bytes) -> str:
        copy = BodyCopy(1000, "application/json")
        copy.add(body)
        copy.ended = True
        return copy.digest(Redactor())

    assert digest(b'{"a":1,"pin":"4711"}') == digest(b'{"pin":"4712", "a":1}')
    assert digest(b'{"a":1,"pin":"4711"}') != digest(b'{"a":2,"pin":"4711"}')


CONTENT_TYPES = (
    "",
    "application/json",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "multipart/form-data",
    "text/x; charset=no",
    "text/plain; charset=utf-7",
)


@given(st.binary(max_size=300), st.sampled_from(CONTENT_TYPES), st.integers(0, 300))
def test_any_body_can_be_kept(data: bytes, content_type: str, limit: int) -> None:
    copy = BodyCopy(limit, content_type)
    copy.add(data[:100])
    copy.add(data[100:])
    copy.ended = True
    json.dumps(copy.value()).encode()
    assert isinstance(copy.digest(None), str)
    assert copy.length == len(data)


# ------------------------------------------------------------------------------- the response


def test_the_session_is_current_in_each_step_and_in_close_and_nowhere_else(
    traced: Any, cassettes: Path
) -> None:
    seen: list[tuple[str, bool]] = []

    class Result:
        def __iter__(self) -> Iterator[bytes]:
            seen.append(("iter", current_is_request()))
            for number in range(2):
                yield str(driver_call(number, lambda: "x")).encode()

        def close(self) -> None:
            seen.append(("close", current_is_request()))
            driver_call("in close")

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        seen.append(("call", current_is_request()))
        start_response("200 OK", [])
        return Result()

    result = traced(app, "record")(environ_of("GET", "/"), lambda *_: None)
    for _ in result:
        assert not current_is_request()
    result.close()
    result.close()
    assert not current_is_request()
    assert seen == [("call", True), ("iter", True), ("close", True)]
    assert names(cassettes) == ["GET__.json"]
    assert len(load(cassettes / "GET__.json")["events"]) == 3


def test_a_response_streams_lazily(traced: Any) -> None:
    made: list[int] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        for number in range(3):
            made.append(number)
            yield b"x"

    result = traced(app, "record")(environ_of("GET", "/"), lambda *_: None)
    assert made == []
    next(result)
    assert made == [0]
    result.close()


def test_a_list_keeps_its_length_for_the_server(traced: Any) -> None:
    app = traced(lambda environ, start_response: [b"a", b"b"], "record")
    assert len(app(environ_of("GET", "/"), lambda *_: None)) == 2


def test_the_cassette_is_there_before_the_last_bytes_go_out(traced: Any, cassettes: Path) -> None:
    app = traced(plain(lambda e: driver_call(1)), "record")
    result = app(environ_of("GET", "/"), lambda *_: None)
    assert next(result) == b"live"
    assert names(cassettes) == ["GET__.json"]
    result.close()
    assert names(cassettes) == ["GET__.json"]


def test_the_cassette_is_there_before_the_last_item_of_a_list_goes_out(
    traced: Any, cassettes: Path
) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [str(driver_call(1)).encode(), b"last"]

    result = traced(app, "record")(environ_of("GET", "/"), lambda *_: None)
    assert next(result) == b"live" and names(cassettes) == []
    assert next(result) == b"last" and names(cassettes) == ["GET__.json"]
    result.close()


@pytest.mark.parametrize("mode", ["record", "replay", "once", "off"])
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_both_sides_are_as_pep_3333_has_them(traced: Any, mode: str, method: str) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        data = environ["wsgi.input"].read(2)
        data += environ["wsgi.input"].readline() + b"".join(environ["wsgi.input"])
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield data
        yield b"" if method == "HEAD" else b"end"

    checked = validator(traced(validator(app), mode))
    server = dict.fromkeys(("wsgi.multithread", "wsgi.multiprocess", "wsgi.run_once"), False)
    more = {**server, "wsgi.errors": io.StringIO(), **FORM}
    response = serve(checked, method, "/", b"one\ntwo\n", **more)
    assert response.body == b"one\ntwo\n" + (b"" if method == "HEAD" else b"end")


def test_a_result_that_refuses_to_tell_its_length_is_served(traced: Any) -> None:
    class Result(list[bytes]):
        def __len__(self) -> int:
            raise TypeError("unknown")

    def app(environ: dict[str, Any], start_response: Any) -> Result:
        start_response("200 OK", [])
        return Result([b"a", b"b"])

    assert serve(traced(app, "record"), "GET", "/").body == b"ab"


def test_write_is_passed_on(traced: Any, cassettes: Path) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        write(str(driver_call(1)).encode())
        return [b" and more"]

    assert serve(traced(app, "record"), "GET", "/").body == b"live and more"
    assert load(cassettes / "GET__.json")["response"]["body"] == "live and more"


def test_a_second_start_response_with_exc_info_counts(traced: Any, cassettes: Path) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        try:
            driver_call(1)
            raise ValueError
        except ValueError:
            start_response("503 Busy", [], sys.exc_info())
        return [b"busy"]

    response = serve(traced(app, "record"), "GET", "/")
    assert (response.status, response.starts) == (503, 2)
    assert load(cassettes / "GET__.json")["response"]["status"] == 503


def test_head_is_recorded_though_nothing_is_read(traced: Any, cassettes: Path) -> None:
    serve(traced(plain(lambda e: driver_call(1)), "record"), "HEAD", "/", stop_after=0)
    assert names(cassettes) == ["HEAD__.json"]


def failing(when: str) -> Any:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        driver_call(1)
        if when == "call":
            raise ValueError("boom")
        start_response("200 OK", [])
        return steps()

    def steps() -> Iterator[bytes]:
        if when == "stream":
            yield b"begun"
        raise ValueError("boom")

    return app


@pytest.mark.parametrize("when", ["call", "first step", "stream"])
@pytest.mark.parametrize("mode", ["record", "replay"])
def test_an_exception_of_the_application_goes_on_its_way(
    traced: Any, cassettes: Path, when: str, mode: str
) -> None:
    with pytest.raises(ValueError, match="boom"):
        serve(traced(failing(when), "record"), "GET", "/")
    with pytest.raises(ValueError, match="boom"):
        serve(traced(failing(when), mode), "GET", "/")
    response = load(cassettes / "GET__.json")["response"]
    assert response["error"] == "ValueError"
    assert response["status"] == (500 if when == "call" else 200)


def test_a_client_that_goes_away_does_not_cost_a_good_cassette(
    traced: Any, cassettes: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        for number in range(3):
            yield str(driver_call(number)).encode()

    serve(traced(app, "record"), "GET", "/")
    good = (cassettes / "GET__.json").read_bytes()
    monkeypatch.setenv("TIMETRACER_RUN_ID", "another run")
    serve(traced(app, "record"), "GET", "/", stop_after=1)
    assert (cassettes / "GET__.json").read_bytes() == good
    assert "was interrupted" in caplog.text


def test_an_exception_while_the_response_is_closed_is_recorded(
    traced: Any, cassettes: Path
) -> None:
    class Result(list[bytes]):
        def close(self) -> None:
            raise ValueError("boom")

    def app(environ: dict[str, Any], start_response: Any) -> Result:
        start_response("200 OK", [])
        return Result([str(driver_call(1)).encode()])

    with pytest.raises(ValueError, match="boom"):
        serve(traced(app, "record"), "GET", "/")
    assert names(cassettes) == ["GET__.json"]
    assert load(cassettes / "GET__.json")["response"]["error"] == "ValueError"


def test_the_end_of_the_program_is_no_good_recording(
    traced: Any, cassettes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(environ: dict[str, Any]) -> Any:
        driver_call(1)
        raise SystemExit

    serve(traced(plain(lambda e: driver_call(1)), "record"), "GET", "/")
    good = (cassettes / "GET__.json").read_bytes()
    monkeypatch.setenv("TIMETRACER_RUN_ID", "another run")
    with pytest.raises(SystemExit):
        serve(traced(plain(call), "record"), "GET", "/")
    assert (cassettes / "GET__.json").read_bytes() == good
    assert len(names(cassettes)) == 2


def test_what_is_asked_in_close_does_not_make_an_interrupted_recording_good(
    traced: Any, cassettes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Result:
        def __init__(self, ends: bool) -> None:
            self.steps = iter([b"one", b"two"])
            self.ends = ends

        def __iter__(self) -> Iterator[bytes]:
            return self

        def __next__(self) -> bytes:
            if self.ends:
                raise SystemExit
            return next(self.steps)

        def close(self) -> None:
            driver_call("in close")

    def app(environ: dict[str, Any], start_response: Any) -> Result:
        start_response("200 OK", [])
        driver_call("in the call")
        return Result("HTTP_END" in environ)

    serve(traced(app, "record"), "GET", "/")
    good = (cassettes / "GET__.json").read_bytes()
    monkeypatch.setenv("TIMETRACER_RUN_ID", "another run")
    with pytest.raises(SystemExit):
        serve(traced(app, "record"), "GET", "/", HTTP_END="now")
    assert (cassettes / "GET__.json").read_bytes() == good
    assert len(names(cassettes)) == 2


def test_a_body_that_was_sought_in_is_not_kept(traced: Any, cassettes: Path) -> None:
    def call(environ: dict[str, Any]) -> Any:
        first = environ["wsgi.input"].read()
        environ["wsgi.input"].seek(0)
        return driver_call(1, lambda: (first + environ["wsgi.input"].read()).decode())

    assert serve(traced(plain(call), "record"), "POST", "/", b"xy").body == b"xyxy"
    request = load(cassettes / "POST__.json")["request"]
    assert request["body"]["$body"]["omitted"] == "not seen as a whole"
    assert request["body_hash"] == ""


def test_a_body_without_length_is_kept_when_it_was_read_to_its_end(
    traced: Any, cassettes: Path
) -> None:
    app = traced(plain(lambda e: driver_call(len(e["wsgi.input"].read()))), "record")
    chunked = {"wsgi.input": io.BytesIO(b"a=1"), "wsgi.input_terminated": True, **FORM}
    serve(app, "POST", "/", **chunked)
    request = load(cassettes / "POST__.json")["request"]
    assert request["body"] == {"a": "1"}
    assert request["body_hash"]


# ------------------------------------------------------------------------------- misses


def test_a_miss_is_a_clear_answer_and_one_log_line(
    traced: Any, caplog: pytest.LogCaptureFixture
) -> None:
    app = traced(plain(lambda e: driver_call(1, no_server)), "replay")
    response = serve(app, "GET", "/users/123")
    assert (response.status, response.starts) == (500, 1)
    assert response.header("content-type") == "text/plain; charset=utf-8"
    assert response.header("content-length") == str(len(response.body))
    assert "find_one on shop.things" in response.body.decode()
    assert "GET__users_123.json" in response.body.decode()
    assert len([r for r in caplog.records if r.name == "timetracer"]) == 1


def test_a_miss_is_json_for_who_asks_for_it(traced: Any) -> None:
    app = traced(plain(lambda e: driver_call(1, no_server)), "replay")
    response = serve(app, "GET", "/", HTTP_ACCEPT="application/json")
    assert json.loads(response.body)["error"] == "MissError"


def test_a_miss_is_named_to_head_by_its_headers(traced: Any) -> None:
    app = traced(plain(lambda e: driver_call(1, no_server)), "replay")
    response = serve(app, "HEAD", "/")
    assert (response.status, response.body) == (500, b"")
    assert int(response.header("content-length") or 0) > 100


def test_a_miss_behind_another_exception_is_named(traced: Any) -> None:
    def call(environ: dict[str, Any]) -> Any:
        try:
            return driver_call(1, no_server)
        except MissError as error:
            raise RuntimeError("service unavailable") from error

    assert b"find_one on shop.things" in serve(traced(plain(call), "replay"), "GET", "/").body


def test_a_miss_that_the_application_handles_is_its_own_matter(traced: Any) -> None:
    def call(environ: dict[str, Any]) -> Any:
        with contextlib.suppress(MissError):
            return driver_call(1, no_server)
        return "instead"

    assert serve(traced(plain(call), "replay"), "GET", "/").body == b"instead"


def test_a_miss_in_the_first_step_is_an_answer_still(traced: Any) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/html")])
        yield driver_call(1, no_server)

    response = serve(traced(app, "replay"), "GET", "/")
    assert response.status == 500
    assert b"find_one" in response.body


def test_a_miss_after_the_first_bytes_leaves_the_application(traced: Any) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"begun"
        yield driver_call(1, no_server)

    with pytest.raises(MissError):
        serve(traced(app, "replay"), "GET", "/")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema_version": "7.0"}'])
@pytest.mark.parametrize("mode", ["replay", "once", "new_episodes"])
def test_a_cassette_that_cannot_be_read_is_told_at_the_first_call(
    traced: Any, cassettes: Path, content: bytes, mode: str
) -> None:
    cassettes.mkdir()
    (cassettes / "GET__users.json").write_bytes(content)
    response = serve(traced(plain(lambda e: driver_call(1, no_server)), mode), "GET", "/users")
    assert response.status == 500
    assert b"GET__users.json" in response.body
    assert serve(traced(plain(lambda e: "hi"), mode), "GET", "/users").body == b"hi"
    assert (cassettes / "GET__users.json").read_bytes() == content


def test_a_cassette_that_cannot_be_opened_for_reasons_of_our_own(
    traced: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr("timetracer.integrations.request.open_request", broken)
    app = plain(lambda e: driver_call(1, no_server))
    told = serve(traced(app, "replay"), "GET", "/").body
    assert b"cannot be opened: RuntimeError('a bug')" in told
    assert serve(traced(plain(lambda e: driver_call(1)), "record"), "GET", "/").body == b"live"
    assert "no cassette for GET /: a bug" in caplog.text


def test_nothing_of_ours_stops_a_request(
    traced: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = traced(plain(lambda e: driver_call(1)), "record")
    for name in ("bytes_ahead", "_facts"):
        with monkeypatch.context() as patch:
            patch.setattr(f"timetracer.integrations.wsgi.{name}", None)
            assert serve(app, "GET", "/").body == b"live"
    monkeypatch.setattr(BodyCopy, "value", None)
    assert serve(app, "GET", "/").body == b"live"
    assert "cannot trace a request" in caplog.text
    assert "cannot trace a request: complete failed" in caplog.text


def test_a_directory_that_cannot_be_written_does_not_stop_a_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    config = TraceConfig(mode="record", cassette_dir=tmp_path / "file" / "cassettes")
    app = TimeTracerMiddleware(plain(lambda e: driver_call(1)), config)
    assert serve(app, "GET", "/").body == b"live"
    assert "cannot be written" in caplog.text


# ------------------------------------------------------------------------------- which requests


def test_excluded_paths_are_left_alone(traced: Any, cassettes: Path) -> None:
    app = traced(plain(lambda e: driver_call(1)), "record", exclude_paths=["/health"])
    serve(app, "GET", "/health/live")
    serve(app, "GET", "/healthy")
    process.reset_process()
    assert names(cassettes) == ["GET__healthy.json"]


def test_sampling_is_decided_for_each_request(traced: Any, cassettes: Path) -> None:
    app = traced(plain(lambda e: [driver_call(n) for n in range(3)]), "record", sample_rate=0.5)
    for _ in range(40):
        serve(app, "GET", "/")
    kept = [load(path) for path in cassettes.iterdir()]
    assert 5 < len(kept) < 35
    assert {len(document["events"]) for document in kept} == {3}


def test_errors_only_keeps_errors_and_exceptions(traced: Any, cassettes: Path) -> None:
    for status in ("200 OK", "302 Found", "404 Not Found", "500 Oops"):
        app = traced(plain(lambda e: driver_call(1), status), "record", errors_only=True)
        serve(app, "GET", "/" + status[:3])
    with pytest.raises(ValueError, match="boom"):
        serve(traced(failing("stream"), "record", errors_only=True), "GET", "/boom")
    statuses = sorted(load(path)["response"]["status"] for path in cassettes.iterdir())
    assert statuses == [200, 404, 500]


def test_an_explicit_cassette_owns_the_calls_of_requests_inside_it(
    traced: Any, cassettes: Path, tmp_path: Path
) -> None:
    app = traced(plain(lambda e: driver_call(e["PATH_INFO"])), "record")
    with use_cassette(tmp_path / "all.json", mode="record"):
        for path in ("/a", "/b"):
            serve(app, "GET", path)
    assert names(cassettes) == []
    assert len(load(tmp_path / "all.json")["events"]) == 2


def test_a_body_is_not_read_ahead_inside_an_explicit_cassette(
    traced: Any, tmp_path: Path
) -> None:
    read: list[Any] = []

    class Watched(io.BytesIO):
        def read(self, *size: Any) -> bytes:
            read.append(size)
            return super().read(*size)

    inner = traced(plain(lambda e: "hi"), "replay")

    def call(environ: dict[str, Any]) -> Any:
        with use_cassette(tmp_path / "block.json", mode="record"):
            serve(inner, "POST", "/", b"x", **{"wsgi.input": Watched(b"x")})
        inside = [*read]
        serve(inner, "POST", "/", b"x", **{"wsgi.input": Watched(b"x")})
        return inside, read

    assert serve(traced(plain(call), "record"), "GET", "/").body == b"([], [(1,)])"


def test_an_explicit_cassette_inside_a_request_owns_what_is_made_in_it(
    traced: Any, cassettes: Path, tmp_path: Path
) -> None:
    inner = traced(plain(lambda e: driver_call("inner")), "record")

    def call(environ: dict[str, Any]) -> Any:
        driver_call("outer")
        with use_cassette(tmp_path / "block.json", mode="record"):
            return serve(inner, "GET", "/inner").body

    serve(traced(plain(call), "record"), "GET", "/outer")
    assert names(cassettes) == ["GET__outer.json"]
    assert len(load(tmp_path / "block.json")["events"]) == 1


def test_a_request_inside_a_request_has_its_own_cassette(traced: Any, cassettes: Path) -> None:
    inner = traced(plain(lambda e: driver_call("inner")), "record")

    def call(environ: dict[str, Any]) -> Any:
        return serve(inner, "GET", "/inner").body, driver_call("outer")

    serve(traced(plain(call), "record"), "GET", "/outer")
    events = [load(cassettes / f"GET__{name}.json")["events"] for name in ("inner", "outer")]
    assert [len(found) for found in events] == [1, 1]


def test_concurrent_requests_do_not_mix(traced: Any, cassettes: Path) -> None:
    together = threading.Barrier(8)

    def call(environ: dict[str, Any]) -> Any:
        together.wait(10)
        return [driver_call((environ["PATH_INFO"], number)) for number in range(20)]

    app = traced(plain(call), "record")
    threads = [threading.Thread(target=serve, args=(app, "GET", f"/{n}")) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(8):
        events = load(cassettes / f"GET__{number}.json")["events"]
        assert [event["arguments"]["filter"]["_id"] for event in events] == [
            [f"/{number}", position] for position in range(20)
        ]


def test_replay_tells_in_the_log_what_was_used(
    traced: Any, caplog: pytest.LogCaptureFixture
) -> None:
    serve(traced(plain(lambda e: [driver_call(1), driver_call(2)]), "record"), "GET", "/")
    with caplog.at_level(logging.INFO, "timetracer"):
        serve(traced(plain(lambda e: driver_call(1)), "replay"), "GET", "/")
    assert "replayed 1 events of" in caplog.text
    assert "1 unused" in caplog.text
