"""ASGI, Starlette and FastAPI: a session for each request, and every message as it came."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import fastapi
import httpx
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.convertors import CONVERTOR_TYPES, Convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route

from tests.support import offline, server
from tests.support.asgi import BODY, answering, read_body, respond, scope_of, serve
from tests.support.http import driver_call
from timetracer import ConfigError, MissError, TraceConfig, process, session, use_cassette
from timetracer.integrations import fastapi as fastapi_integration
from timetracer.integrations.asgi import TimeTracerMiddleware
from timetracer.integrations.starlette import TimeTracerMiddleware as StarletteMiddleware
from timetracer.integrations.starlette import auto_setup

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # newer releases prefer another client
    from starlette.testclient import TestClient

# The client of older releases leaves streams of its own open.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*MemoryObject:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("own_process_session"),
]


Traced = Callable[..., TimeTracerMiddleware]


@pytest.fixture
def traced(cassettes: Path) -> Traced:
    """Wraps an application: traced(app, "record", **settings)."""

    def wrap(app: Any, mode: str, **settings: Any) -> TimeTracerMiddleware:
        return TimeTracerMiddleware(
            app, TraceConfig(mode=mode, cassette_dir=cassettes, **settings)
        )

    return wrap


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*")) if directory.exists() else []


def load(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_bytes())
    return document


def no_server() -> Any:
    raise AssertionError("a call was made in replay")


def call(app: Any, method: str, path: str, *body: bytes, **options: Any) -> Any:
    return asyncio.run(serve(app, method, path, *body, **options))


# ------------------------------------------------------------------------------- record, replay


def test_a_request_is_recorded_and_replayed(traced: Traced, cassettes: Path) -> None:
    live = traced(answering(lambda scope: driver_call(1, lambda: "tea")), "record")
    assert call(live, "GET", "/users/123").body == b"tea"
    assert names(cassettes) == ["GET__users_123.json"]
    again = traced(answering(lambda scope: driver_call(1, no_server)), "replay")
    assert call(again, "GET", "/users/123").body == b"tea"


def test_request_and_response_are_kept(traced: Traced, cassettes: Path) -> None:
    app = traced(answering(lambda scope: driver_call(1)), "record")
    call(app, "GET", "/users/%C3%A4?page=2", headers=[("User-Agent", "curl")])
    document = load(next(cassettes.iterdir()))
    assert document["request"] == {
        "method": "GET",
        "path": "/users/ä",
        "query": "page=2",
        "route": None,
        "headers": [["user-agent", "curl"]],
        "body": None,
        "body_hash": "",
    }
    response = document["response"]
    assert response.pop("duration_ms") >= 0
    assert response == {
        "status": 200,
        "headers": [["content-type", "text/plain"]],
        "body": "live",
        "error": None,
    }


def test_a_request_without_driver_calls_writes_no_file_and_needs_none(
    traced: Traced, cassettes: Path
) -> None:
    for mode in ("record", "replay", "once", "new_episodes"):
        assert call(traced(answering(lambda scope: "hi"), mode), "POST", "/", b"x").body == b"hi"
    assert names(cassettes) == []


def test_off_is_straight_through(traced: Traced) -> None:
    given: list[Any] = []

    async def app(*arguments: Any) -> None:
        given.extend(arguments)

    scope: dict[str, Any] = {"type": "http"}
    asyncio.run(traced(app, "off")(scope, "receive", "send"))  # type: ignore[arg-type]
    assert given == [{"type": "http"}, "receive", "send"]
    assert given[0] is scope


def test_a_bad_setting_is_an_error_at_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMETRACER_MODE", "recrod")
    for set_up in (TimeTracerMiddleware, lambda app: auto_setup(Starlette())):
        with pytest.raises(ConfigError, match="Did you mean record"):
            set_up(answering(str))


def test_one_request_is_traced_once(traced: Traced, cassettes: Path, tmp_path: Path) -> None:
    inner = TraceConfig(mode="record", cassette_dir=tmp_path / "inner")
    app = answering(lambda scope: driver_call(1))
    call(traced(TimeTracerMiddleware(app, inner), "record"), "GET", "/")
    assert names(tmp_path / "inner") == []
    assert len(load(cassettes / "GET__.json")["events"]) == 1


def test_an_explicit_cassette_owns_the_requests_in_it(
    traced: Traced, cassettes: Path, tmp_path: Path
) -> None:
    path = tmp_path / "block.json"
    for mode, fetch in (("record", lambda: "x"), ("replay", no_server)):
        app = traced(answering(lambda scope, fetch=fetch: driver_call(1, fetch)), "once")
        with use_cassette(path, mode=mode):
            assert call(app, "POST", "/", b"sent").body == b"x"
    assert names(cassettes) == []


def test_start_up_belongs_to_the_program(traced: Traced, cassettes: Path) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan" and set(scope) == {"type"}
        driver_call("at start-up")

    asyncio.run(traced(app, "record")({"type": "lifespan"}, no_server, no_server))
    process.reset_process()
    [name] = names(cassettes)
    assert not name.startswith("GET")
    assert len(load(cassettes / name)["events"]) == 1


# ------------------------------------------------------------------------------- bodies


@pytest.mark.parametrize("mode", ["record", "replay", "new_episodes"])
@pytest.mark.parametrize("limit", [4, 100])
@pytest.mark.parametrize("parts", [(b"one", b"", b"two", b"three"), (b"onetwothree",)])
def test_every_part_of_a_body_passes_as_it_comes(
    traced: Traced, cassettes: Path, mode: str, limit: int, parts: tuple[bytes, ...]
) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend(await read_body(receive))
        seen.append((await receive())["type"])
        if mode != "replay":
            driver_call(1)
        await respond(send, b"a", b"", b"bc")

    served = call(traced(app, mode, max_request_body=limit), "POST", "/", *parts)
    assert seen == [*parts, "http.disconnect"]
    assert [m["body"] for m in served.messages if m["type"] == BODY] == [b"a", b"", b"bc"]
    if mode != "replay":
        document = load(cassettes / "POST__.json")
        kept = {"length": 11, "content_type": "", "truncated": True}
        assert document["response"]["body"] == "abc"
        body = document["request"]["body"]
        assert body == "onetwothree" if limit == 100 else body["$body"].items() >= kept.items()


def test_nothing_is_held_back(traced: Traced) -> None:
    """Each part of the answer is with the client before the next part of the request comes."""
    order: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(3):
            message = await receive()
            order.append(f"in {number}")
            driver_call(number)
            more = message["more_body"]
            await send({"type": BODY, "body": message["body"], "more_body": more})

    async def on_send(message: Any) -> None:
        if message["type"] == BODY:
            order.append(f"out {message['body'].decode()}")

    call(traced(app, "record"), "POST", "/", b"0", b"1", b"2", on_send=on_send)
    assert order == ["in 0", "out 0", "in 1", "out 1", "in 2", "out 2"]


@pytest.mark.parametrize(
    ("bodies", "again"),
    [
        ((b'{"n": 1}', b'{"n": 2}'), (b'{"n":2}', b'{"n":1}')),
        ((b"\x00\x01", b"\x00\x02"), (b"\x00\x02", b"\x00\x01")),
    ],
    ids=["JSON", "bytes"],
)
def test_the_body_selects_the_take(traced: Traced, bodies: Any, again: Any) -> None:
    count = iter(range(1, 9))
    app = answering(lambda scope: driver_call(1, lambda: f"answer {next(count)}"))
    live = traced(app, "record")
    for body in bodies:
        call(live, "POST", "/users", body)
    replay = traced(app, "replay")
    answers = [call(replay, "POST", "/users", body).body for body in again]
    assert answers == [b"answer 2", b"answer 1"]


@pytest.mark.parametrize("mode", ["record", "replay"])
def test_a_client_that_goes_away_while_it_sends(traced: Traced, mode: str) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend([(await receive())["type"], (await receive())["type"]])

    half = [{"type": "http.request", "body": b"ha", "more_body": True}]
    call(traced(app, mode), "POST", "/", messages=half, headers=[("content-length", "4")])
    assert seen == ["http.request", "http.disconnect"]


# ------------------------------------------------------------------------------- the end


@pytest.mark.parametrize("mode", ["record", "new_episodes"])
def test_work_after_the_response_belongs_to_the_request(
    traced: Traced, cassettes: Path, mode: str
) -> None:
    kept: list[int] = []

    def app_of(fetch: Any) -> Any:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            driver_call("in the handler", fetch)
            await respond(send, b"done")
            driver_call("in the background", fetch)

        return app

    async def on_send(message: Any) -> None:
        if message["type"] == BODY:
            kept.append(len(load(cassettes / "GET__.json")["events"]))

    call(traced(app_of(lambda: 1), mode), "GET", "/", on_send=on_send)
    assert kept == [1]  # who has the answer finds the cassette
    assert names(cassettes) == ["GET__.json"]
    assert len(load(cassettes / "GET__.json")["events"]) == 2
    assert call(traced(app_of(no_server), "replay"), "GET", "/").error is None


def test_the_cassette_is_there_before_all_declared_bytes_are(
    traced: Traced, cassettes: Path
) -> None:
    kept: list[list[str]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        driver_call(1)
        headers = [(b"Content-Length", b"4")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for part in (b"ab", b"cd", b""):
            await send({"type": BODY, "body": part, "more_body": part != b""})

    async def on_send(message: Any) -> None:
        kept.append(names(cassettes))

    call(traced(app, "record"), "GET", "/", on_send=on_send)
    assert kept == [[], [], ["GET__.json"], ["GET__.json"]]


def test_a_task_that_outlives_its_request_belongs_to_it(traced: Traced, cassettes: Path) -> None:
    tasks: list[asyncio.Task[None]] = []

    def app_of(fetch: Any) -> Any:
        async def later() -> None:
            await asyncio.sleep(0.01)
            driver_call("first", fetch)
            await asyncio.sleep(0)
            driver_call("second", fetch)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            tasks.append(asyncio.create_task(later()))
            await respond(send, b"soon")

        return app

    async def run(mode: str, fetch: Any) -> None:
        await serve(traced(app_of(fetch), mode), "POST", "/jobs", b"x")
        await tasks.pop()

    asyncio.run(run("record", lambda: 1))
    assert len(load(cassettes / "POST__jobs.json")["events"]) == 2
    asyncio.run(run("replay", no_server))


@pytest.mark.parametrize("started", [False, True])
def test_an_exception_is_recorded_and_raised_again(
    traced: Traced, cassettes: Path, started: bool
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        driver_call(1)
        if started:
            await send({"type": "http.response.start", "status": 201, "headers": []})
            await send({"type": BODY, "body": b"ha", "more_body": True})
        raise ValueError("bug")

    served = call(traced(app, "record", errors_only=True), "GET", "/")
    assert repr(served.error) == "ValueError('bug')"
    assert len(served.messages) == (2 if started else 0)
    [path] = cassettes.iterdir()
    response = load(path)["response"]
    assert (response["status"], response["error"]) == (201 if started else 500, "ValueError")


def test_a_cancelled_request_does_not_replace_a_good_recording(
    traced: Traced, cassettes: Path
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        driver_call(1)
        if scope["query_string"]:
            await asyncio.sleep(60)
        await respond(send, b"done")

    async def cancelled(path: str) -> None:
        task = asyncio.create_task(serve(traced(app, "record"), "GET", path))
        await asyncio.sleep(0.01)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(cancelled("/?wait"))
    [path] = cassettes.iterdir()
    assert len(load(path)["events"]) == 1
    assert session.CURRENT.get() is None


def test_requests_that_run_at_once_keep_their_calls_apart(
    traced: Traced, cassettes: Path
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for number in range(3):
            await asyncio.sleep(0)
            await asyncio.gather(
                asyncio.to_thread(driver_call, [scope["path"], number, "thread"]),
                asyncio.create_task(in_a_task([scope["path"], number, "task"])),
            )
        await respond(send, b"done")

    async def in_a_task(key: Any) -> None:
        await asyncio.sleep(0)
        driver_call(key)

    async def run(mode: str) -> None:
        wrapped = traced(app, mode)
        await asyncio.gather(*(serve(wrapped, "GET", f"/{n}") for n in range(20)))

    asyncio.run(run("record"))
    for number in range(20):
        path, events = f"/{number}", load(cassettes / f"GET__{number}.json")["events"]
        assert len(events) == 6
        assert all(json.dumps(path) in json.dumps(event) for event in events)
    asyncio.run(run("replay"))


# ------------------------------------------------------------------------------- misses


def asking(key: Any) -> Any:
    return answering(lambda scope: driver_call(key, no_server))


def test_a_miss_is_named_in_the_response_and_raised(traced: Traced) -> None:
    served = call(traced(asking(1), "replay"), "GET", "/users/123")
    assert isinstance(served.error, MissError)
    assert served.status == 500
    assert served.headers["content-type"] == "text/plain; charset=utf-8"
    assert served.headers["content-length"] == str(len(served.body))
    assert b"find_one on shop.things" in served.body
    assert b"GET__users_123.json" in served.body


def test_a_miss_is_named_in_json_to_who_asks_for_it(traced: Traced) -> None:
    served = call(
        traced(asking(1), "replay"), "GET", "/", headers=[("accept", "application/json")]
    )
    assert json.loads(served.body)["error"] == "MissError"
    assert call(traced(asking(1), "replay"), "HEAD", "/").body == b""


def test_a_miss_after_the_response_began_is_raised(traced: Traced) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        driver_call(1, no_server)

    served = call(traced(app, "replay"), "GET", "/")
    assert isinstance(served.error, MissError)
    assert [m["type"] for m in served.messages] == ["http.response.start"]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.TaskGroup is of Python 3.11")
def test_a_miss_in_a_task_group_is_named(traced: Traced) -> None:
    async def ask(key: Any) -> None:
        driver_call(key, no_server)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(ask(1))
            group.create_task(ask(2))

    assert b"find_one on shop.things" in call(traced(app, "replay"), "GET", "/").body


def test_an_error_of_the_application_is_its_own(traced: Traced) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError("bug")

    served = call(traced(app, "replay"), "GET", "/")
    assert isinstance(served.error, KeyError) and served.messages == []


# ------------------------------------------------------------------------------- websockets


def chat(fetch: Any) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept", "headers": []})
        while (message := await receive())["type"] == "websocket.receive":
            text = f"{message['text']}: {driver_call(message['text'], fetch)}"
            await send({"type": "websocket.send", "text": text})

    return app


def talk(*texts: str) -> list[dict[str, Any]]:
    said = [{"type": "websocket.receive", "text": text} for text in texts]
    return [{"type": "websocket.connect"}, *said, {"type": "websocket.disconnect", "code": 1000}]


def test_a_websocket_has_a_session_for_its_connection(traced: Traced, cassettes: Path) -> None:
    live = call(
        traced(chat(lambda: "hi"), "record"), "WEBSOCKET", "/chat?room=1", messages=talk("a", "b")
    )
    document = load(next(cassettes.iterdir()))
    assert document["request"]["method"] == "WEBSOCKET"
    assert document["request"]["path"] == "/chat"
    assert (document["response"]["status"], document["response"]["error"]) == (101, None)
    assert len(document["events"]) == 2
    replay = traced(chat(no_server), "replay")
    again = call(replay, "WEBSOCKET", "/chat?room=1", messages=talk("a", "b"))
    assert again.messages == live.messages and again.error is None
    missed = call(replay, "WEBSOCKET", "/chat?room=1", messages=talk("c"))
    close = missed.messages[-1]
    assert (close["type"], close["code"]) == ("websocket.close", 1011)
    assert close["reason"].startswith("find_one on shop.things is not in")
    assert len(close["reason"].encode()) <= 123


def test_a_websocket_is_closed_once(traced: Traced) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            driver_call(1, no_server)
        finally:
            await send({"type": "websocket.close", "code": 4001})

    served = call(traced(app, "replay"), "WEBSOCKET", "/chat")
    assert isinstance(served.error, MissError)
    assert [message["code"] for message in served.messages] == [4001]


def test_a_websocket_that_the_client_closed_is_a_whole_recording(
    traced: Traced, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for run in ("one", "another"):
        monkeypatch.setenv("TIMETRACER_RUN_ID", run)
        app = traced(chat(lambda: "hi"), "record")
        assert call(app, "WEBSOCKET", "/chat", messages=talk("a")).error is None
    assert "interrupted" not in caplog.text


def test_a_websocket_that_is_refused(traced: Traced, cassettes: Path) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        driver_call("may they come in?")
        await send({"type": "websocket.close", "code": 4001})

    call(traced(app, "record"), "WEBSOCKET", "/chat")
    assert load(next(cassettes.iterdir()))["response"]["status"] == 403


# ------------------------------------------------------------------------------- Starlette


def config(cassettes: Path, mode: str, **settings: Any) -> TraceConfig:
    return TraceConfig(mode=mode, cassette_dir=cassettes, **settings)


async def ask(app: Any, method: str, path: str, **options: Any) -> httpx.Response:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        return await client.request(method, path, **options)


def http(app: Any, method: str, path: str, **options: Any) -> httpx.Response:
    return asyncio.run(ask(app, method, path, **options))


class Asks:
    """A middleware that asks the database."""

    def __init__(self, app: Any, key: str) -> None:
        self.app, self.key = app, key

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            driver_call(self.key)
        await self.app(scope, receive, send)


async def user(request: Request) -> JSONResponse:
    return JSONResponse(driver_call(request.path_params["user_id"], lambda: {"name": "Alice"}))


def test_auto_setup_stands_around_what_is_added_later(cassettes: Path) -> None:
    for mode in ("record", "replay"):
        app = Starlette(routes=[Route("/users/{user_id:int}", user)])
        assert auto_setup(app, config(cassettes, mode)) is app
        app.add_middleware(Asks, key="who is it?")
        assert http(app, "GET", "/users/7").json() == {"name": "Alice"}
    document = load(cassettes / "GET__users_7.json")
    assert len(document["events"]) == 2
    assert document["request"]["route"] == "/users/{user_id:int}"
    assert document["response"]["body"] == {"name": "Alice"}


def test_auto_setup_may_be_called_again(cassettes: Path) -> None:
    app = auto_setup(Starlette(routes=[Route("/users/{user_id}", user)]), config(cassettes, "off"))
    assert http(app, "GET", "/users/7").status_code == 200
    assert names(cassettes) == []
    auto_setup(app)
    auto_setup(app, config(cassettes, "record"))  # it serves already
    http(app, "GET", "/users/7")
    assert len(load(cassettes / "GET__users_7.json")["events"]) == 1


def test_auto_setup_of_an_application_that_serves_already(cassettes: Path) -> None:
    app = Starlette(routes=[Route("/users/{user_id}", user)])
    http(app, "GET", "/users/7")
    auto_setup(app, config(cassettes, "record"))
    http(app, "GET", "/users/7")
    assert names(cassettes) == ["GET__users_7.json"]


@pytest.mark.parametrize("middleware", [TimeTracerMiddleware, StarletteMiddleware])
def test_the_middleware_can_be_added(cassettes: Path, middleware: Any) -> None:
    for mode in ("record", "replay"):
        app = Starlette(routes=[Route("/users/{user_id}", user)])
        app.add_middleware(middleware, config=config(cassettes, mode))
        assert http(app, "GET", "/users/7").json() == {"name": "Alice"}
        missed = http(app, "GET", "/users/8")
    route = load(cassettes / "GET__users_7.json")["request"]["route"]
    assert route == ("/users/{user_id}" if middleware is StarletteMiddleware else None)
    assert missed.status_code == 200
    (cassettes / "GET__users_8.json").unlink()
    assert "GET__users_8.json" in http(app, "GET", "/users/8").text


def test_matching_runs_no_code_of_the_application_twice(
    cassettes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    class Watched(Convertor[str]):
        regex = "[^/]+"

        def convert(self, value: str) -> str:
            seen.append(value)
            return value

        def to_string(self, value: str) -> str:
            return value

    monkeypatch.setitem(CONVERTOR_TYPES, "watched", Watched())
    app = Starlette(routes=[Route("/users/{user_id:watched}", user)])
    http(auto_setup(app, config(cassettes, "record")), "GET", "/users/ann")
    assert seen == ["ann"]
    assert load(cassettes / "GET__users_ann.json")["request"]["route"] is None


@pytest.mark.parametrize("how", ["auto_setup", "add_middleware"])
@pytest.mark.parametrize(
    ("handler_for", "page"),
    [(None, "find_one on"), (MissError, "own"), (Exception, "own"), (500, "own"), (404, "find")],
)
def test_a_miss_is_named_unless_the_application_handles_it(
    cassettes: Path, how: str, handler_for: Any, page: str
) -> None:
    async def own_page(request: Any, error: Any) -> PlainTextResponse:
        return PlainTextResponse("our own page", status_code=500)

    app = Starlette(
        routes=[Route("/users/{user_id}", user)],
        exception_handlers={handler_for: own_page} if handler_for else {},
    )
    if how == "auto_setup":
        auto_setup(app, config(cassettes, "replay"))
    else:
        app.add_middleware(StarletteMiddleware, config=config(cassettes, "replay"))
    response = http(app, "GET", "/users/7")
    assert response.status_code == 500
    assert page in response.text
    if handler_for is not MissError:
        with pytest.raises(MissError):
            TestClient(app).get("/users/7")


def test_a_miss_is_named_once_in_place_of_the_page(cassettes: Path) -> None:
    app = Starlette(routes=[Route("/users/{user_id}", user)])
    served = call(auto_setup(app, config(cassettes, "replay")), "GET", "/users/7")
    assert isinstance(served.error, MissError)
    assert [message["type"] for message in served.messages] == ["http.response.start", BODY]
    assert served.body.startswith(b"find_one on")


def test_an_answer_that_the_application_makes_of_a_miss_stays(cassettes: Path) -> None:
    async def handles(request: Any) -> Any:
        try:
            driver_call(1, no_server)
        except MissError:
            if request.query_params:
                raise HTTPException(500, "our own words") from None
            response = PlainTextResponse("our own page", status_code=500)
        return response

    app = auto_setup(Starlette(routes=[Route("/", handles)]), config(cassettes, "replay"))
    assert http(app, "GET", "/").text == "our own page"
    assert http(app, "GET", "/?raise=1").text == "our own words"


def test_the_debugger_shows_a_miss(cassettes: Path) -> None:
    app = Starlette(debug=True, routes=[Route("/users/{user_id}", user)])
    text = http(auto_setup(app, config(cassettes, "replay")), "GET", "/users/7").text
    assert "Traceback" in text and "find_one on" in text


def test_an_error_page_is_recorded_as_the_client_gets_it(cassettes: Path) -> None:
    async def fails(request: Any) -> Any:
        driver_call(1)
        raise ValueError("bug")

    app = auto_setup(Starlette(routes=[Route("/", fails)]), config(cassettes, "record"))
    assert http(app, "GET", "/").text == "Internal Server Error"
    response = load(cassettes / "GET__.json")["response"]
    assert (response["status"], response["error"]) == (500, "ValueError")
    assert response["body"] == "Internal Server Error"


def test_mounted_applications_share_the_request(cassettes: Path, tmp_path: Path) -> None:
    inner = Starlette(routes=[Route("/users/{user_id}", user)])
    auto_setup(inner, config(tmp_path / "inner", "record"))
    app = Starlette(routes=[Mount("/shop", inner)])
    auto_setup(app, config(cassettes, "record"))
    assert http(app, "GET", "/shop/users/7").status_code == 200
    assert names(tmp_path / "inner") == []
    request = load(cassettes / "GET__shop_users_7.json")["request"]
    assert (request["path"], request["route"]) == ("/shop/users/7", "/shop/users/{user_id}")


# ------------------------------------------------------------------------------- FastAPI


def shop(cassettes: Path, mode: str, fetch: Any = no_server) -> FastAPI:
    """An application with all that FastAPI does around a handler."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        driver_call("starting", fetch)
        yield

    app = FastAPI(lifespan=lifespan)
    fastapi_integration.auto_setup(app, config(cassettes, mode))
    router = APIRouter(prefix="/users")

    async def connection() -> AsyncIterator[str]:
        yield str(driver_call("opening", fetch))
        driver_call("closing", fetch)

    def sync_part() -> str:
        return str(driver_call("in a thread", fetch))

    @router.post("/{user_id}")
    async def change(
        user_id: int,
        body: dict[str, str],
        tasks: BackgroundTasks,
        opened: str = Depends(connection),
        threaded: str = Depends(sync_part),
    ) -> dict[str, Any]:
        tasks.add_task(driver_call, "sync task", fetch)
        return {"id": user_id, "opened": opened, "threaded": threaded, **body}

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def lines() -> AsyncIterator[str]:
            for number in range(3):
                yield f"{driver_call(number, fetch)}\n"

        return StreamingResponse(lines())

    @app.post("/files")
    async def files(request: fastapi.Request) -> int:
        sizes = [len(part) async for part in request.stream()]
        return sum(sizes) + int(driver_call("size", fetch) == "live")

    @app.websocket("/chat/{room}")
    async def chat(websocket: WebSocket, room: str) -> None:
        await websocket.accept()
        await websocket.send_text(f"{room}: {driver_call(await websocket.receive_text(), fetch)}")
        await websocket.close()

    app.include_router(router, prefix="/api")
    return app


def everything(app: FastAPI, client: Any) -> list[Any]:
    with client(app) as asked:
        with asked.websocket_connect("/chat/tea") as websocket:
            websocket.send_text("hello")
            said = websocket.receive_text()
        return [
            asked.post("/api/users/7", json={"name": "Alice"}).json(),
            asked.get("/stream").text,
            asked.post("/files", content=b"x" * 100_000).json(),
            said,
        ]


def test_all_that_fastapi_does_around_a_handler(cassettes: Path) -> None:
    live = everything(shop(cassettes, "record", lambda: "live"), TestClient)
    assert live == [
        {"id": 7, "opened": "live", "threaded": "live", "name": "Alice"},
        "live\nlive\nlive\n",
        100_001,
        "tea: live",
    ]
    process.reset_process()
    events = {name: len(load(cassettes / name)["events"]) for name in names(cassettes)}
    [start_up] = set(events) - {
        "POST__api_users_7.json",
        "GET__stream.json",
        "POST__files.json",
        "WEBSOCKET__chat_tea.json",
    }
    assert events.pop(start_up) == 1
    assert events == {
        "POST__api_users_7.json": 4,
        "GET__stream.json": 3,
        "POST__files.json": 1,
        "WEBSOCKET__chat_tea.json": 1,
    }
    change = load(cassettes / "POST__api_users_7.json")
    assert change["request"]["route"] == "/api/users/{user_id}"
    assert change["request"]["body"] == {"name": "Alice"}
    chat = load(cassettes / "WEBSOCKET__chat_tea.json")
    assert chat["request"]["route"] == "/chat/{room}"
    assert chat["response"]["status"] == 101
    assert everything(shop(cassettes, "replay"), TestClient) == live
    gc.collect()  # see pytestmark


def test_a_client_that_stops_reading_a_stream(cassettes: Path) -> None:
    app = shop(cassettes, "record", lambda: "live")

    async def stop_after_the_first_part() -> None:
        gone = asyncio.Event()

        async def receive() -> dict[str, Any]:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message.get("body"):
                gone.set()
                await asyncio.sleep(0.01)

        await app(scope_of("GET", "/stream"), receive, send)

    asyncio.run(stop_after_the_first_part())
    assert 1 <= len(load(cassettes / "GET__stream.json")["events"]) <= 3


# ------------------------------------------------------------------------------- real processes


EXAMPLE = offline.ROOT / "examples" / "fastapi_app" / "app.py"

REQUESTS: list[tuple[str, str, Any]] = [
    ("GET", "/books", None),
    ("POST", "/books", {"title": "Momo", "author": "Ende"}),
    ("POST", "/books", {"title": "Jim Knopf", "author": "Ende"}),
    ("GET", "/books?author=Ende", None),
    ("GET", "/books/none", None),
    ("GET", "/books.txt", None),
    ("GET", "/books", None),
]


def run_example(tmp_path: Path, mode: str, uri: str, rules: offline.Rules) -> list[Any]:
    report, log = tmp_path / f"{mode}.jsonl", tmp_path / f"{mode}.log"
    port = server.free_port()
    env = {
        "MONGODB_URI": uri,
        "PORT": str(port),
        "TIMETRACER_MODE": mode,
        "TIMETRACER_CASSETTE_DIR": str(tmp_path / "cassettes"),
        **offline.guarded(report, rules),
    }
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, str(EXAMPLE)],
            env=offline.environment(env),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        answers = asyncio.run(ask_example(process, f"http://127.0.0.1:{port}"))
    finally:
        process.terminate()
        process.wait(20)
    told = log.read_text(encoding="utf-8")
    assert answers, told
    assert not rules.refuse or not offline.attempts(report), told
    return answers


async def ask_example(process: subprocess.Popen[bytes], base: str) -> list[Any]:
    async with httpx.AsyncClient(base_url=base, trust_env=False, timeout=30) as client:
        while True:
            if process.poll() is not None:
                return []
            with contextlib.suppress(httpx.ConnectError):
                await client.get("/openapi.json")
                break
            await asyncio.sleep(0.05)
        one_by_one = [await client.request(m, path, json=body) for m, path, body in REQUESTS]
        at_once = await asyncio.gather(*(client.get(f"/books?author={n}") for n in range(30)))
        return [(r.status_code, r.headers["content-type"], r.text) for r in one_by_one + at_once]


@pytest.mark.live
def test_the_example_is_recorded_and_replayed_by_real_processes(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MONGODB_URI", raising=False)  # a server of our own, that can be stopped
        with server.running_server() as database:
            rules = offline.Rules(
                ports=database.ports, dns=False, threads="none", refuse=False
            )
            live = run_example(tmp_path, "record", database.uri, rules)
    rules = offline.Rules(ports=database.ports, dns=True, threads="driver")
    assert run_example(tmp_path, "replay", database.uri, rules) == live
    assert [status for status, _, _ in live[:7]] == [200, 201, 201, 200, 404, 200, 200]
    assert "Momo" in live[3][2] and "Jim Knopf" in live[5][2]
    created = load(tmp_path / "cassettes" / "POST__books.json")
    assert created["request"]["body"] == {"title": "Momo", "author": "Ende"}
    assert len(created["events"]) == 2  # the book, and the log that is written in the background
