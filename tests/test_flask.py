"""Flask: set up in one line; the example shop as a real process, recorded and replayed."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask import Blueprint, Flask, Response, abort, jsonify, request, stream_with_context
from werkzeug.exceptions import HTTPException, InternalServerError
from werkzeug.routing import BaseConverter

from tests.support import offline, server
from tests.support.http import driver_call
from timetracer import ConfigError, MissError, TraceConfig
from timetracer.integrations.flask import TimeTracerMiddleware, auto_setup, init_app

pytestmark = pytest.mark.usefixtures("own_process_session")


def shop(cassettes: Path, mode: str, **settings: Any) -> Flask:
    app = Flask("shop")
    auto_setup(app, TraceConfig(mode=mode, cassette_dir=cassettes, **settings))

    @app.route("/users/<user_id>", methods=["GET", "POST"])
    def user(user_id: str) -> Any:
        sent = request.get_json(silent=True)
        return jsonify(driver_call(user_id, lambda: {"name": "Alice", "sent": sent}))

    return app


def load(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_bytes())
    return document


def no_server() -> Any:
    raise AssertionError("a call was made in replay")


# ------------------------------------------------------------------------------- set-up


def test_auto_setup_gives_the_application_back_and_may_be_called_again() -> None:
    app = Flask("shop")
    config = TraceConfig(mode="record")
    assert auto_setup(app, config) is app
    middleware = app.wsgi_app
    assert isinstance(middleware, TimeTracerMiddleware)
    auto_setup(app)
    init_app(app)
    assert app.wsgi_app is middleware
    assert middleware.config.mode == "record"
    init_app(app, TraceConfig(mode="replay"))
    assert app.wsgi_app is middleware
    assert middleware.config.mode == "replay"


def test_a_bad_setting_is_an_error_at_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMETRACER_SAMPLE_RATE", "2")
    with pytest.raises(ConfigError, match="SAMPLE_RATE"):
        auto_setup(Flask("shop"))


@pytest.mark.parametrize("how", ["auto_setup", "middleware", "middleware behind another"])
def test_a_request_is_recorded_and_replayed(
    cassettes: Path, how: str
) -> None:
    def app_in(mode: str, fetch: Any) -> Flask:
        app = Flask("shop")
        config = TraceConfig(mode=mode, cassette_dir=cassettes)
        if how == "auto_setup":
            auto_setup(app, config)
        elif how == "middleware":
            app.wsgi_app = TimeTracerMiddleware(app.wsgi_app, config)  # type: ignore[method-assign]
        else:
            inner = app.wsgi_app
            app.wsgi_app = TimeTracerMiddleware(  # type: ignore[method-assign]
                lambda environ, start_response: inner(environ, start_response), config
            )
        app.get("/users/<user_id>")(lambda user_id: jsonify(driver_call(user_id, fetch)))
        return app

    live = app_in("record", lambda: {"name": "Alice"}).test_client().get("/users/123")
    document = load(cassettes / "GET__users_123.json")
    known = how != "middleware behind another"
    assert document["request"]["route"] == ("/users/<user_id>" if known else None)
    assert document["response"]["body"] == {"name": "Alice"}
    again = app_in("replay", no_server).test_client().get("/users/123")
    assert (again.status, again.headers, again.data) == (live.status, live.headers, live.data)


def test_the_environment_decides_when_nothing_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIMETRACER_MODE", "record")
    app = auto_setup(Flask("shop"))
    app.get("/users")(lambda: str(driver_call(1)))
    app.test_client().get("/users")
    assert (tmp_path / "cassettes" / "GET__users.json").exists()


def test_the_route_can_name_the_cassette(cassettes: Path) -> None:
    app = shop(cassettes, "record", name_template="{route}/{method}__{path}")
    app.test_client().get("/users/7")
    [path] = cassettes.rglob("*.json")
    assert "users" in path.parent.name


def test_matching_runs_no_code_of_the_application_twice(cassettes: Path) -> None:
    seen: list[str] = []

    class Watched(BaseConverter):
        def to_python(self, value: str) -> str:
            seen.append(value)
            return value

    app = Flask("shop")
    app.url_map.converters["watched"] = Watched
    auto_setup(app, TraceConfig(mode="record", cassette_dir=cassettes))
    app.get("/users/<watched:name>")(lambda name: str(driver_call(name)))
    app.test_client().get("/users/ann")
    assert seen == ["ann"]
    assert load(cassettes / "GET__users_ann.json")["request"]["route"] is None


def test_a_redirect_an_unknown_path_and_a_wrong_method_are_as_without_it(cassettes: Path) -> None:
    app = shop(cassettes, "record")
    app.get("/tree/")(lambda: "leaf")
    client = app.test_client()
    answers = [client.get("/tree").status_code, client.get("/nowhere").status_code]
    answers += [client.delete("/users/1").status_code, client.options("/users/1").status_code]
    assert answers == [308, 404, 405, 200]
    assert not cassettes.exists()


# ------------------------------------------------------------------------------- responses


def test_json_and_uploads_arrive_whole_and_are_kept(cassettes: Path) -> None:
    app = shop(cassettes, "record")

    @app.post("/files")
    def files() -> Any:
        data = request.files["file"].read()
        return str(driver_call(1, lambda: len(data) + int(request.form["more"])))

    client = app.test_client()
    upload = {"file": (io.BytesIO(b"x" * 1000), "x.txt"), "more": "5"}
    assert client.post("/files", data=upload).data == b"1005"
    assert load(cassettes / "POST__files.json")["request"]["body"]["file"]["length"] == 1000
    client.post("/users/1", json={"a": [1, 2]})
    assert load(cassettes / "POST__users_1.json")["request"]["body"] == {"a": [1, 2]}


def test_an_upload_beyond_the_limit_arrives_whole(cassettes: Path) -> None:
    for mode in ("record", "replay"):
        app = shop(cassettes, mode, max_request_body=100)
        app.post("/count")(lambda: str(len(request.data) + driver_call(1, lambda: 1)))
        assert app.test_client().post("/count", data=b"x" * 100_000).data == b"100001"
    body = load(cassettes / "POST__count.json")["request"]["body"]["$body"]
    assert (body["length"], body["truncated"]) == (100_000, True)


def test_a_generator_that_asks_while_it_streams(cassettes: Path) -> None:
    def app_in(mode: str, fetch: Any) -> Flask:
        app = shop(cassettes, mode)

        @app.get("/stream")
        def stream() -> Response:
            def lines() -> Iterator[str]:
                for number in range(3):
                    yield f"{request.args['q']}{driver_call(number, fetch)}\n"

            response = Response(stream_with_context(lines()))
            response.call_on_close(lambda: driver_call("closing", fetch))
            return response

        return app

    with app_in("record", lambda: "row").test_client().get("/stream?q=a") as response:
        assert response.data == b"arow\narow\narow\n"
    [path] = cassettes.iterdir()
    assert len(load(path)["events"]) == 4
    with app_in("replay", no_server).test_client().get("/stream?q=a") as response:
        assert response.data == b"arow\narow\narow\n"


def test_an_error_in_a_handler_is_recorded_as_its_response(cassettes: Path) -> None:
    app = shop(cassettes, "record", errors_only=True)

    @app.get("/error")
    def error() -> str:
        raise ValueError(driver_call(1))

    app.get("/gone")(lambda: abort(410, driver_call(1)))
    client = app.test_client()
    assert (client.get("/error").status_code, client.get("/gone").status_code) == (500, 410)
    client.get("/users/123")
    assert sorted(load(path)["response"]["status"] for path in cassettes.iterdir()) == [410, 500]


# ------------------------------------------------------------------------------- misses


def test_a_miss_that_nobody_handles_is_named_in_the_response(cassettes: Path) -> None:
    app = shop(cassettes, "replay")
    app.after_request(lambda response: (response.headers.set("X-Kept", "1"), response)[1])
    response = app.test_client().get("/users/123")
    assert response.status_code == 500
    assert response.mimetype == "text/plain"
    assert response.headers["X-Kept"] == "1"
    assert "find_one on shop.things" in response.text
    assert "GET__users_123.json" in response.text
    head = app.test_client().head("/users/123")
    assert (head.status_code, head.data) == (500, b"")


def test_an_error_of_the_application_keeps_its_page_in_replay(cassettes: Path) -> None:
    app = shop(cassettes, "replay")
    app.get("/bug")(lambda: {}["no such key"])
    assert "Internal Server Error" in app.test_client().get("/bug").text


@pytest.mark.parametrize("setting", ["TESTING", "DEBUG", "PROPAGATE_EXCEPTIONS"])
def test_a_miss_goes_to_the_debugger_and_to_tests(cassettes: Path, setting: str) -> None:
    app = shop(cassettes, "replay")
    app.config[setting] = True
    with pytest.raises(MissError, match="find_one"):
        app.test_client().get("/users/123")


@pytest.mark.parametrize("kind", [MissError, Exception, 500, InternalServerError, HTTPException])
@pytest.mark.parametrize("home", ["application", "blueprint"])
def test_an_error_page_of_the_application_stays(cassettes: Path, kind: Any, home: str) -> None:
    app = Flask("shop")
    auto_setup(app, TraceConfig(mode="replay", cassette_dir=cassettes))
    blueprint = Blueprint("part", "part")
    blueprint.get("/users")(lambda: str(driver_call(1, no_server)))
    place: Any = app if home == "application" else blueprint
    place.register_error_handler(kind, lambda error: ("our own page", 500))
    app.register_blueprint(blueprint)
    assert app.test_client().get("/users").text == "our own page"


# ------------------------------------------------------------------------------- real processes


def load_demo() -> Any:
    place = offline.ROOT / "examples" / "pymongo_flask_app" / "demo.py"
    spec = importlib.util.spec_from_file_location("flask_demo", place)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["flask_demo"] = module
    spec.loader.exec_module(module)
    return module


demo = load_demo()


@pytest.mark.live
def test_the_demo_passes(tmp_path: Path, mongodb: str) -> None:
    place = offline.ROOT / "examples" / "pymongo_flask_app" / "demo.py"
    done = offline.run_program(place, "--keep", str(tmp_path), env={"MONGODB_URI": None})
    assert "sockets opened to a database: 0" in done.stdout
    assert "The answers are the same." in done.stdout


@pytest.mark.live
def test_concurrent_requests_to_real_processes(tmp_path: Path, mongodb: str) -> None:
    cassettes = tmp_path / "cassettes"
    paths = [f"/products/{sku}?n={n}" for n in range(6) for sku in ("T-1", "C-1", "C-404")]

    def run(mode: str, database: server.Server) -> list[Any]:
        report = tmp_path / f"{mode}.jsonl"
        rules = offline.Rules(
            ports=database.ports, dns=False, threads="none", refuse=mode == "replay"
        )
        env = {
            "MONGODB_URI": database.uri,
            "SHOP_DATABASE": "shop",
            "TIMETRACER_MODE": mode,
            "TIMETRACER_CASSETTE_DIR": str(cassettes),
            **offline.guarded(report, rules),
        }
        log = tmp_path / f"{mode}.log"
        with (
            demo.running_app(server.free_port(), log, env) as base,
            ThreadPoolExecutor(6) as threads,
        ):
            answers = list(threads.map(lambda path: demo.ask(base, "GET", path), paths))
        assert mode == "record" or not offline.attempts(report), log.read_text(encoding="utf-8")
        return answers

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MONGODB_URI", raising=False)  # a server of our own, that can be stopped
        with server.running_server() as database:
            offline.run_program(demo.SEED, database.uri, "shop")
            live = run("record", database)
    assert {answer.status for answer in live} == {200, 404}
    assert len(list(cassettes.iterdir())) == len(paths)
    assert run("replay", database) == live


@pytest.mark.live
def test_the_cassette_that_the_command_line_names(tmp_path: Path, mongodb: str) -> None:
    """TIMETRACER_MODE=replay TIMETRACER_CASSETTE=./cassettes/GET__users_123.json python app.py"""
    name = f"timetracer_test_flask_{tmp_path.name}"[:60]
    offline.run_program(demo.SEED, mongodb, name)
    settings = {"SHOP_DATABASE": name, "TIMETRACER_CASSETTE_DIR": str(tmp_path / "cassettes")}

    def answer(**env: str) -> Any:
        log = tmp_path / "app.log"
        with demo.running_app(server.free_port(), log, {**settings, **env}) as base:
            return [demo.ask(base, "GET", path) for path in ("/users/123", "/users/9")]

    live = answer(TIMETRACER_MODE="record", MONGODB_URI=mongodb)
    cassette = tmp_path / "cassettes" / "GET__users_123.json"
    again = answer(
        TIMETRACER_MODE="replay",
        TIMETRACER_CASSETTE=str(cassette),
        MONGODB_URI="mongodb://127.0.0.1:1",
    )
    assert again[0] == live[0]
    assert again[1].status == 500
    assert str(cassette) in again[1].body.decode()
    offline.run_program(
        "import sys, pymongo; pymongo.MongoClient(sys.argv[1]).drop_database(sys.argv[2])",
        mongodb,
        name,
    )
