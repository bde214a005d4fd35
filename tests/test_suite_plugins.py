"""A whole suite beside other plugins: Django's, those for coroutines, workers and runs again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.server import Server
from tests.test_suite import Project, make


@pytest.fixture
def project(tmp_path: Path, mongodb_server: Server, database: str) -> Project:
    """An empty project, whose modules can be imported."""
    directory = tmp_path / "project"
    directory.mkdir()
    project = make(directory, mongodb_server, database)
    project.write("pytest.ini", "[pytest]\npythonpath = .\n")
    return project


def ini(project: Project, lines: str) -> None:
    project.write("pytest.ini", (project.path / "pytest.ini").read_text() + lines + "\n")


# ------------------------------------------------------------------------- pytest-django

SETTINGS = """
    SECRET_KEY = "made up"
    ALLOWED_HOSTS = ["*"]
    DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
    INSTALLED_APPS = [
        "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.staticfiles"
    ]
    STATIC_URL = "/static/"
    MIDDLEWARE = ["timetracer.integrations.django.TimeTracerMiddleware"]
    TIMETRACER = {"mode": "record", "cassette_dir": "elsewhere"}
    ROOT_URLCONF = "urls"
    DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
    USE_TZ = True
"""

URLS = """
    import os
    from django.http import HttpResponse
    from django.urls import path
    from pymongo import AsyncMongoClient, MongoClient

    things = MongoClient("{uri}", connect=False)["{database}"].things

    def show(request, name):
        things.insert_one({"name": name})
        return HttpResponse(str(things.count_documents({"name": name})))

    async def show_async(request, name):
        async with AsyncMongoClient("{uri}") as client:
            return HttpResponse(str(await client["{database}"].things.count_documents({})))

    def swallows(request):
        try:
            things.find_one({"more": os.environ.get("MORE", "")})
        except Exception:
            return HttpResponse(status=500)
        return HttpResponse("fine")

    urlpatterns = [
        path("things/<name>", show),
        path("async/<name>", show_async),
        path("swallows", swallows),
    ]
"""

DJANGO = """
    import urllib.request
    import pytest
    from django.contrib.auth.models import User
    from django.test import TestCase
    from urls import things

    @pytest.fixture(autouse=True)
    def empty():
        things.delete_many({})
        yield
        things.delete_many({})

    def test_client(client):
        assert client.get("/things/a").content == b"1"
        assert client.get("/things/a").content == b"2"

    async def test_async_client(async_client):
        assert (await async_client.get("/async/a")).content == b"0"

    @pytest.fixture
    def user(db):
        made = User.objects.create(username="ann")
        things.insert_one({"user": made.pk, "name": made.username})
        return made

    def test_database(user, django_assert_num_queries):
        with django_assert_num_queries(1):
            assert User.objects.get().username == "ann"
        assert things.find_one({"user": user.pk})["name"] == "ann"

    @pytest.mark.django_db(transaction=True)
    def test_transaction(client):
        assert User.objects.count() == 0
        assert client.get("/things/b").content == b"1"

    def test_server(live_server):
        with urllib.request.urlopen(f"{live_server.url}/things/c") as answer:
            assert answer.read() == b"1"

    def test_settings(settings, client):
        settings.DEBUG = True
        assert client.get("/things/d").status_code == 200

    class TestThings(TestCase):
        @classmethod
        def setUpTestData(cls):
            cls.user = User.objects.create(username="bob")
            cls.key = things.insert_one({"prepared": cls.user.pk}).inserted_id

        def test_prepared(self):
            self.assertEqual(User.objects.get(), self.user)
            self.assertEqual(self.client.get("/things/e").content, b"1")

    def test_swallows(client):
        assert client.get("/swallows").status_code in (200, 500)
"""


def test_pytest_django(project: Project) -> None:
    project.write("django_settings.py", SETTINGS)
    project.write("urls.py", URLS)
    project.write("test_django.py", DJANGO)
    ini(project, "asyncio_mode = auto")
    ini(project, "asyncio_default_fixture_loop_scope = function")
    given = ("--ds=django_settings", "--liveserver=127.0.0.1", "-p", "asyncio")
    ended = project.record(*given)
    assert ended.outcomes == {} and ended.tests == 8, ended.text
    names = project.cassettes()
    assert "cassettes/test_django/test_client.json" in names
    assert not [name for name in names if "elsewhere" in name], names
    for arguments, env in (((), {}), ((), {"ORDER": "reversed"}), (("-k", "server or Things"), {})):
        ended = project.replay(*given, *arguments, **env)
        assert ended.outcomes == {} and " 0 missed" in ended.text, ended.text
    ended = project.replay(*given, MORE="more")
    assert list(ended.outcomes) == ["test_django.py::test_swallows"], ended.text


# ------------------------------------------------------------------------- coroutines

AUTO = """
    import pytest
    from pymongo import AsyncMongoClient

    @pytest.fixture(scope="session")
    async def client():
        async with AsyncMongoClient("{uri}") as client:
            await client["{database}"].things.insert_one({"_id": "session"})
            yield client
            await client["{database}"].things.drop()

    @pytest.fixture(scope="class")
    async def key(client):
        return (await client["{database}"].things.insert_one({"n": 1})).inserted_id

    class TestAuto:
        async def test_session(self, client, key):
            assert await client["{database}"].things.count_documents({"_id": "session"}) == 1
            assert (await client["{database}"].things.find_one({"_id": key}))["n"] == 1

        async def test_class(self, client, key):
            found = client["{database}"].things.find({"_id": key})
            assert [one["n"] async for one in found] == [1]
"""


def test_pytest_asyncio_with_auto_mode_and_loops_of_wider_scope(project: Project) -> None:
    project.write("test_auto.py", AUTO)
    ini(project, "asyncio_mode = auto")
    ini(project, "asyncio_default_fixture_loop_scope = session")
    ini(project, "asyncio_default_test_loop_scope = session")
    given = ("-p", "asyncio")
    ended = project.record(*given)
    assert ended.outcomes == {}, ended.text
    for arguments, env in (((), {"ORDER": "reversed"}), (("-k", "test_class"), {})):
        ended = project.replay(*given, *arguments, **env)
        assert ended.outcomes == {} and " 0 missed" in ended.text, ended.text


# ------------------------------------------------------------------------- workers, and again

MANY = """
    import os, pathlib, uuid
    import pytest
    from pymongo import MongoClient

    @pytest.fixture(scope="session")
    def db():
        client = MongoClient("{uri}")
        db = client["{database}_" + uuid.uuid4().hex]
        db.wide.insert_one({"_id": "wide"})
        yield db
        client.drop_database(db.name)
        client.close()

    @pytest.fixture(scope="module")
    def module(db):
        return db.wide.insert_one({"n": 1}).inserted_id

    @pytest.mark.parametrize("n", range(12))
    def test_many(db, module, n):
        assert db.wide.find_one({"_id": module})["n"] == 1
        key = db.things.insert_one({"n": n}).inserted_id
        assert db.things.find_one({"_id": key})["n"] == n

    def test_again(db):
        db.things.insert_one({"again": 1})
        marker = pathlib.Path("again")
        first = not marker.exists()
        marker.touch()
        assert not first
"""


def test_four_workers_record_and_replay(project: Project) -> None:
    project.write("test_runs.py", MANY)
    few = ("-k", "many")
    ended = project.record("-n", "4", *few)
    assert ended.outcomes == {} and "12 tests recorded" in ended.text, ended.text
    for arguments in (("-n", "4"), (), ("-n", "2", "--dist=loadfile")):
        ended = project.replay(*arguments, *few)
        assert ended.outcomes == {} and "12 replayed" in ended.text, ended.text


def test_a_test_that_runs_again_has_a_take_for_each_run(project: Project) -> None:
    project.write("test_runs.py", MANY)
    few = ("-k", "again", "--reruns=2")
    ended = project.record(*few)
    assert ended.code == 0 and "1 rerun" in ended.text, ended.text
    names = project.cassettes("cassettes/test_runs")
    assert [name for name in names if "again" in name] == [
        "cassettes/test_runs/test_again.2.json",
        "cassettes/test_runs/test_again.json",
    ]
    (project.path / "again").unlink()
    ended = project.replay(*few)
    assert ended.code == 0 and "1 rerun" in ended.text, ended.text
    ended = project.replay(*few)
    assert ended.code == 0 and "1 rerun" not in ended.text, ended.text


def test_only_what_failed_last_is_recorded_again(project: Project) -> None:
    project.write("test_runs.py", MANY)
    assert project.record("--lfnf=all").code == 1
    before = {name: (project.path / name).read_bytes() for name in project.cassettes()}
    ended = project.record("--lf")
    assert ended.code == 0 and ended.tests == 1, ended.text
    after = {name: (project.path / name).read_bytes() for name in project.cassettes()}
    assert {name for name in after if "many[" in name} == {
        name for name in before if "many[" in name and after[name] == before[name]
    }
    ended = project.replay()
    assert ended.code == 0 and " 0 missed" in ended.text, ended.text
