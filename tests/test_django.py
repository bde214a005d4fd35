"""Django: a session for each request, sync or async, under WSGI and ASGI; commands and streams."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
import time
import types
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import django
import httpx
import pytest
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import clear_url_caches, path, re_path
from django.utils.decorators import async_only_middleware, sync_only_middleware

from tests.support import asgi, offline, server
from tests.support.http import driver_call
from timetracer import ConfigError, MissError, TraceConfig, process
from timetracer.integrations.request import TRACE_KEY

URLS: Any = types.ModuleType("urls")

if not settings.configured:
    settings.configure(
        SECRET_KEY="of the tests",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=URLS,
        MIDDLEWARE=["timetracer.integrations.django.TimeTracerMiddleware"],
        USE_TZ=True,
        LOGGING_CONFIG=None,
        DATA_UPLOAD_MAX_MEMORY_SIZE=10_000_000,
    )
    django.setup()

from timetracer.integrations.django import MIDDLEWARE, TimeTracerMiddleware, auto_setup  # noqa: E402

pytestmark = pytest.mark.usefixtures("own_process_session")


def load(file: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(file.read_bytes())
    return document


def names(directory: Path) -> list[str]:
    return sorted(file.name for file in directory.glob("*")) if directory.exists() else []


def no_server() -> Any:
    raise AssertionError("a call was made in replay")


def is_there() -> Any:
    return "live"


@dataclass
class Database:
    """What the views ask."""

    fetch: Callable[[], Any] = is_there


DATABASE = Database()


def live() -> Any:
    return DATABASE.fetch()


# ------------------------------------------------------------------------------- the site


def user(request: Any, user_id: int) -> JsonResponse:
    return JsonResponse({"id": user_id, "name": driver_call(user_id, live)})


async def user_async(request: Any, user_id: int) -> JsonResponse:
    await asyncio.sleep(0)
    return JsonResponse({"id": user_id, "name": driver_call(user_id, live)})


def stream(request: Any) -> StreamingHttpResponse:
    def lines() -> Iterator[str]:
        try:
            for number in range(3):
                yield f"{driver_call(number, live)}\n"
        finally:
            driver_call("closing", live)

    return StreamingHttpResponse(lines())


async def stream_async(request: Any) -> StreamingHttpResponse:
    async def lines() -> AsyncIterator[str]:
        for number in range(3):
            await asyncio.sleep(0)
            yield f"{driver_call(number, live)}\n"

    return StreamingHttpResponse(lines())


def head(request: Any) -> StreamingHttpResponse:
    driver_call("before the stream", live)
    return StreamingHttpResponse(iter([b"not for HEAD"]))


def file(request: Any) -> FileResponse:
    class Stored(io.RawIOBase):
        """As GridFS has it: what is read is asked for."""

        left = 2

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            self.left -= 1
            return str(driver_call(self.left, live)).encode() if self.left >= 0 else b""

    return FileResponse(Stored(), content_type="text/plain")


def fails(request: Any) -> HttpResponse:
    raise ValueError(driver_call("before it fails", live))


async def fails_async(request: Any) -> HttpResponse:
    raise ValueError(driver_call("before it fails", live))


def sent(request: Any) -> JsonResponse:
    driver_call("sent", live)
    how = request.GET["how"]
    if how == "post":
        files = {name: len(file.read()) for name, file in request.FILES.items()}
        return JsonResponse({**request.POST.dict(), **files})
    body = request.body if how == "body" else b"".join(iter(lambda: request.read(3), b""))
    response = JsonResponse({"length": len(body), "answer": driver_call("answer", live)})
    response.set_cookie("seen", "yes")
    return response


def quiet(request: Any) -> HttpResponse:
    assert TRACE_KEY in request.META
    return HttpResponse("no calls")


def own_page(request: Any) -> HttpResponse:
    return HttpResponse("our own page", status=500)


URLS.urlpatterns = [
    path("users/<int:user_id>", user),
    path("async/users/<int:user_id>", user_async),
    path("stream", stream),
    path("async/stream", stream_async),
    path("file", file),
    path("head", head),
    path("fails", fails),
    path("async/fails", fails_async),
    path("sent", sent),
    path("quiet", quiet),
    re_path(r"^old/(\d+)$", user),
]


def respond_sync(client: Client, method: str, place: str, **options: Any) -> Any:
    return client.generic(method, place, **options)


def respond_async(client: AsyncClient, method: str, place: str, **options: Any) -> Any:
    async def respond() -> Any:
        response = await client.generic(method, place, **options)
        if response.streaming:
            parts = [part async for part in response]
            response.close()
            return types.SimpleNamespace(streamed=b"".join(parts), status_code=200)
        return response

    return asyncio.run(respond())


class Site:
    """The site in a mode, asked through Django's own client."""

    def __init__(self, cassettes: Path, asynchronous: bool) -> None:
        self._cassettes = cassettes
        self._asynchronous = asynchronous

    def ask(self, mode: str, method: str, place: str, **options: Any) -> Any:
        DATABASE.fetch = no_server if mode == "replay" else is_there
        given = {"mode": mode, "cassette_dir": self._cassettes, **options.pop("settings", {})}
        with override_settings(TIMETRACER=given, **options.pop("django", {})):
            process.reset_process()
            kind: Any = AsyncClient if self._asynchronous else Client
            client = kind(raise_request_exception=options.pop("raises", False))
            respond = respond_async if self._asynchronous else respond_sync
            return respond(client, method, place, **options)


@pytest.fixture(params=[False, True], ids=["WSGI", "ASGI"])
def site(request: pytest.FixtureRequest, cassettes: Path) -> Site:
    return Site(cassettes, request.param)


# ------------------------------------------------------------------------------- record, replay


@pytest.mark.parametrize("place", ["/users/7", "/async/users/7"])
def test_a_request_is_recorded_and_replayed(site: Site, cassettes: Path, place: str) -> None:
    assert site.ask("record", "GET", f"{place}?page=2").json() == {"id": 7, "name": "live"}
    [name] = names(cassettes)
    document = load(cassettes / name)
    request = document["request"]
    assert (request["method"], request["path"]) == ("GET", place)
    assert (request["query"], request["route"]) == ("page=2", place.replace("7", "<int:user_id>"))
    response = document["response"]
    assert (response["status"], response["error"]) == (200, None)
    assert response["body"] == {"id": 7, "name": "live"}
    assert ["content-type", "application/json"] in response["headers"]
    assert site.ask("replay", "GET", f"{place}?page=2").json() == {"id": 7, "name": "live"}


def test_a_request_without_driver_calls_writes_no_file_and_needs_none(
    site: Site, cassettes: Path
) -> None:
    for mode in ("record", "replay", "once", "new_episodes"):
        assert site.ask(mode, "GET", "/quiet").content == b"no calls"
    assert names(cassettes) == []


def test_off_takes_the_middleware_out(site: Site, cassettes: Path) -> None:
    assert site.ask("off", "GET", "/users/7").json()["name"] == "live"
    assert site.ask("off", "GET", "/quiet").status_code == 500  # there is no trace
    assert names(cassettes) == []


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")
@pytest.mark.parametrize("place", ["/stream", "/async/stream"])
def test_a_stream_asks_while_it_is_sent(site: Site, cassettes: Path, place: str) -> None:
    for mode in ("record", "replay"):
        response = site.ask(mode, "GET", place)
        assert whole(response) == b"live\nlive\nlive\n"
    process.reset_process()
    [name] = names(cassettes)
    document = load(cassettes / name)
    assert len(document["events"]) == (3 if "async" in place else 4)
    assert document["response"]["body"] == "live\nlive\nlive\n"


def whole(response: Any) -> bytes:
    """What a server reads of a streaming response, and then closes."""
    if isinstance(response, types.SimpleNamespace):
        return bytes(response.streamed)
    body = b"".join(response)
    response.close()
    return body


def test_a_file_that_is_asked_for_while_it_is_sent(cassettes: Path) -> None:
    site = Site(cassettes, asynchronous=False)
    for mode in ("record", "replay"):
        assert whole(site.ask(mode, "GET", "/file")) == b"livelive"
        process.reset_process()
    assert names(cassettes) == ["GET__file.json"]
    assert len(load(cassettes / "GET__file.json")["events"]) == 2


def test_a_client_that_stops_reading_a_stream(cassettes: Path) -> None:
    response = Site(cassettes, asynchronous=False).ask("record", "GET", "/stream")
    assert next(iter(response)) == b"live\n"
    response.close()
    process.reset_process()
    assert names(cassettes) == ["GET__stream.json"]
    assert len(load(cassettes / "GET__stream.json")["events"]) == 2


def test_head_of_a_stream_is_a_whole_recording(
    cassettes: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for run in ("one", "another"):
        monkeypatch.setenv("TIMETRACER_RUN_ID", run)
        response = Site(cassettes, asynchronous=False).ask("record", "HEAD", "/head")
        assert whole(response) == b""
    assert names(cassettes) == ["HEAD__head.json"]
    assert "interrupted" not in caplog.text


# ------------------------------------------------------------------------------- bodies


@pytest.mark.parametrize("how", ["body", "read"])
@pytest.mark.parametrize("limit", [4, 100])
def test_a_body_arrives_whole(site: Site, cassettes: Path, how: str, limit: int) -> None:
    options = {"data": b'{"name": "Alice"}', "content_type": "application/json"}
    for mode in ("record", "replay"):
        limits = {"max_request_body": limit}
        response = site.ask(mode, "POST", f"/sent?how={how}", settings=limits, **options)
        assert response.json()["length"] == 17
    [name] = names(cassettes)
    document = load(cassettes / name)
    assert document["response"]["body"] == {"length": 17, "answer": "live"}
    assert any(header[0] == "set-cookie" for header in document["response"]["headers"])
    body = document["request"]["body"]
    assert body == {"name": "Alice"} if limit == 100 else body["$body"]["length"] == 17


def test_forms_and_uploads(site: Site, cassettes: Path) -> None:
    form = "application/x-www-form-urlencoded"
    asked = {"data": b"name=Alice", "content_type": form}
    upload = (
        b'--b\r\nContent-Disposition: form-data; name="who"\r\n\r\nann\r\n--b\r\n'
        b'Content-Disposition: form-data; name="cv"; filename="a.txt"\r\n\r\n' + b"x" * 50_000
    ) + b"\r\n--b--\r\n"
    other = {"data": upload, "content_type": "multipart/form-data; boundary=b"}
    for mode in ("record", "replay"):
        assert site.ask(mode, "POST", "/sent?how=post", **asked).json() == {"name": "Alice"}
        answer = site.ask(mode, "POST", "/sent?how=post", **other).json()
        assert answer == {"who": "ann", "cv": 50_000}
    first, second = (load(cassettes / name)["request"]["body"] for name in names(cassettes)[::-1])
    assert first == {"name": "Alice"}
    assert (second["who"], second["cv"]["length"]) == ("ann", 50_000)


def test_a_body_that_django_has_in_a_file_already(cassettes: Path) -> None:
    """As it has behind a real ASGI server: the file is at its beginning when the view reads it."""
    for mode in ("record", "replay"):
        DATABASE.fetch = no_server if mode == "replay" else is_there
        with override_settings(TIMETRACER={"mode": mode, "cassette_dir": cassettes}):
            served = asyncio.run(
                asgi.serve(ASGIHandler(), "POST", "/sent?how=read", b"one", b"two", connected=True)
            )
        assert json.loads(served.body) == {"length": 6, "answer": "live"}
    [name] = names(cassettes)
    assert load(cassettes / name)["request"]["body"] == "onetwo"


def test_the_body_selects_the_take(site: Site, cassettes: Path) -> None:
    for n in range(2):
        data = json.dumps({"n": n}) + " " * n
        site.ask("record", "POST", "/sent?how=body", data=data, content_type="application/json")
    for n in (1, 0):
        data = json.dumps({"n": n}) + " " * n
        options = {"data": data, "content_type": "application/json"}
        answer = site.ask("replay", "POST", "/sent?how=body", **options)
        assert answer.json()["length"] == len(data)


# ------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("place", ["/fails", "/async/fails"])
def test_an_exception_is_recorded_with_its_page(site: Site, cassettes: Path, place: str) -> None:
    response = site.ask("record", "GET", place, settings={"errors_only": True})
    assert (response.status_code, "Server Error" in response.content.decode()) == (500, True)
    [name] = names(cassettes)
    kept = load(cassettes / name)["response"]
    assert (kept["status"], kept["error"]) == (500, "ValueError")
    again = site.ask("replay", "GET", place, settings={"cassette": cassettes / name})
    assert again.content == response.content


@pytest.mark.parametrize("place", ["/users/7", "/async/users/7"])
def test_a_miss_is_named_in_the_response(site: Site, place: str) -> None:
    response = site.ask("replay", "GET", place)
    assert response.status_code == 500
    assert response["Content-Type"] == "text/plain; charset=utf-8"
    assert "find_one on shop.things" in response.content.decode()
    assert "users_7.json" in response.content.decode()


def test_an_error_page_of_the_application_stays(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(URLS, "handler500", own_page, raising=False)
    clear_url_caches()
    try:
        assert site.ask("replay", "GET", "/users/7").content == b"our own page"
    finally:
        monkeypatch.undo()
        clear_url_caches()


def test_the_debugger_shows_a_miss(site: Site) -> None:
    page = site.ask("replay", "GET", "/users/7", django={"DEBUG": True}).content.decode()
    assert "Traceback" in page and "find_one on" in page


def test_tests_see_a_miss(site: Site) -> None:
    with pytest.raises(MissError):
        site.ask("replay", "GET", "/users/7", raises=True)
    with pytest.raises(MissError):
        site.ask("replay", "GET", "/users/7", django={"DEBUG_PROPAGATE_EXCEPTIONS": True})


# ------------------------------------------------------------------------------- set-up


@sync_only_middleware
def asks_sync(get_response: Any) -> Any:
    def ask(request: Any) -> Any:
        driver_call("in a middleware", live)
        return get_response(request)

    return ask


@async_only_middleware
def asks_async(get_response: Any) -> Any:
    async def ask(request: Any) -> Any:
        driver_call("in a middleware", live)
        return await get_response(request)

    return ask


@pytest.mark.parametrize("asks", [asks_sync, asks_async])
@pytest.mark.parametrize("place", ["/users/7", "/async/users/7"])
def test_middleware_of_either_kind_may_follow(
    site: Site, cassettes: Path, place: str, asks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "asks", types.ModuleType("asks"))
    sys.modules["asks"].middleware = asks  # type: ignore[attr-defined]
    for mode in ("record", "replay"):
        chain = {"MIDDLEWARE": [MIDDLEWARE, "asks.middleware"]}
        assert site.ask(mode, "GET", place, django=chain).status_code == 200
    [name] = names(cassettes)
    assert len(load(cassettes / name)["events"]) == 2


@pytest.mark.parametrize(
    ("given", "told"),
    [({"mood": "record"}, "Did you mean mode"), ({"mode": "recrod"}, "record"), ("x", "no dict")],
)
def test_a_bad_setting_stops_the_start(given: Any, told: str) -> None:
    with override_settings(TIMETRACER=given):
        with pytest.raises(ConfigError, match=told):
            WSGIHandler()
        with pytest.raises(ConfigError, match=told):
            auto_setup()


def test_auto_setup_puts_the_middleware_first(cassettes: Path) -> None:
    with override_settings(MIDDLEWARE=["asks.middleware"], TIMETRACER=None):
        assert auto_setup(TraceConfig(mode="record", cassette_dir=cassettes)).mode == "record"
        auto_setup()
        assert settings.MIDDLEWARE == [MIDDLEWARE, "asks.middleware"]
        assert TimeTracerMiddleware(print).config.cassette_dir == cassettes


def test_what_a_command_asks_belongs_to_the_program(cassettes: Path) -> None:
    with override_settings(TIMETRACER={"mode": "record", "cassette_dir": cassettes}):
        auto_setup()
        driver_call("in a command")
        process.reset_process()
    assert len(names(cassettes)) == 1


# ------------------------------------------------------------------------------- real processes

SITE = '''
import os, sys
import django
from django.conf import settings
from django.core.management import BaseCommand, call_command
from django.http import JsonResponse, StreamingHttpResponse
from django.urls import path
from pymongo import AsyncMongoClient, MongoClient
from timetracer.plugins import enable_pymongo

enable_pymongo()
settings.configure(
    SECRET_KEY="x", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, USE_TZ=True,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    TIMETRACER={"exclude_paths": ["/health"]},
)
from timetracer.integrations.django import auto_setup
auto_setup()
django.setup()
URI = os.environ["MONGODB_URI"]
books = MongoClient(URI).library.books

def clean(book):
    return {**book, "_id": str(book["_id"])}

def listed(request):
    return JsonResponse({"books": [clean(book) for book in books.find().sort("title")]})

def created(request, title):
    return JsonResponse({"id": str(books.insert_one({"title": title}).inserted_id)})

async def found(request, title):
    async with AsyncMongoClient(URI) as client:
        book = await client.library.books.find_one({"title": title})
        return JsonResponse(clean(book) if book else {"error": "none"}, status=200 if book else 404)

def exported(request):
    found = books.find(batch_size=1).sort("title")
    return StreamingHttpResponse(book["title"] + "\\\\n" for book in found)

def health(request):
    return JsonResponse({"healthy": True})

urlpatterns = [
    path("books", listed), path("books.txt", exported), path("health", health),
    path("books/<title>/new", created), path("books/<title>", found),
]

class Command(BaseCommand):
    def handle(self, *args, **options):
        self.stdout.write(f"{books.count_documents({})} books")

if sys.argv[1] == "command":
    call_command(Command())
elif sys.argv[1] == "wsgi":
    from socketserver import ThreadingMixIn
    from wsgiref.simple_server import WSGIServer, make_server
    from django.core.wsgi import get_wsgi_application
    class Threaded(ThreadingMixIn, WSGIServer):
        daemon_threads = True
    make_server("127.0.0.1", int(sys.argv[2]), get_wsgi_application(), Threaded).serve_forever()
else:
    import uvicorn
    from django.core.asgi import get_asgi_application
    uvicorn.run(get_asgi_application(), port=int(sys.argv[2]), log_level="warning", lifespan="off")
'''

PLACES = ["/books/Momo/new", "/books/Tea/new", "/books", "/books/Momo", "/books/none", "/books.txt"]


def run_site(tmp_path: Path, how: str, mode: str, uri: str, rules: offline.Rules) -> list[Any]:
    script = tmp_path / "site.py"
    script.write_text(SITE.replace("\\\\n", "\\n"), encoding="utf-8")
    report, log = tmp_path / f"{how}-{mode}.jsonl", tmp_path / f"{how}-{mode}.log"
    port = server.free_port()
    env = {
        "MONGODB_URI": uri,
        "TIMETRACER_MODE": mode,
        "TIMETRACER_CASSETTE_DIR": str(tmp_path / "cassettes"),
        **offline.guarded(report, rules),
    }
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, str(script), how, str(port)],
            env=offline.environment(env),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        answers = ask_site(process, f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(20)
    told = log.read_text(encoding="utf-8")
    assert answers, told
    assert not rules.refuse or not offline.attempts(report), told
    return answers


def ask_site(process: subprocess.Popen[bytes], base: str) -> list[Any]:
    with httpx.Client(base_url=base, trust_env=False, timeout=30) as client:
        while True:
            if process.poll() is not None:
                return []
            try:
                client.get("/health")
                break
            except httpx.TransportError:
                time.sleep(0.05)
        answers = [client.get(place) for place in PLACES]
        with ThreadPoolExecutor(6) as threads:
            answers += threads.map(client.get, [f"/books/{n}" for n in range(12)])
        return [(a.status_code, a.headers["content-type"], a.text) for a in answers]


@pytest.mark.live
def test_a_site_is_recorded_and_replayed_by_real_processes(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MONGODB_URI", raising=False)  # a server of our own, that can be stopped
        with server.running_server() as database:
            uri = database.uri
            watch = offline.Rules(ports=database.ports, dns=False, threads="none", refuse=False)
            live = run_site(tmp_path, "wsgi", "record", uri, watch)
            env = {
                "MONGODB_URI": uri,
                "TIMETRACER_MODE": "record",
                "TIMETRACER_CASSETTE_DIR": str(tmp_path / "cassettes"),
            }
            counted = offline.run_program(tmp_path / "site.py", "command", env=env).stdout
    assert [status for status, _, _ in live[:6]] == [200, 200, 200, 200, 404, 200]
    assert counted == "2 books\n"
    refuse = offline.Rules(ports=database.ports, dns=True, threads="driver")
    # What WSGI recorded, ASGI replays as well.
    assert run_site(tmp_path, "asgi", "replay", uri, refuse) == live
    assert run_site(tmp_path, "wsgi", "replay", uri, refuse) == live
    env["TIMETRACER_MODE"] = "replay"
    again = offline.run_offline(tmp_path / "site.py", "command", env=env, rules=refuse)
    assert again.stdout == counted
