"""The suites: packages from PyPI that ship tests which use a MongoDB server, a row each."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Suite:
    """A project whose own tests are run.

    Attributes:
        name: what it is called here and in the table.
        kind: what kind of program it is.
        release: its source distribution on PyPI, as pip asks for it.
        requirements: what its tests need beside it and pytest.
        extras: its own extras that its tests need.
        tests: the files or directories of its tests, relative to the unpacked distribution.
        options: options of pytest that its tests need.
        environment: variables that its tests need.
    """

    name: str
    kind: str
    release: str
    requirements: tuple[str, ...] = ()
    extras: str = ""
    tests: tuple[str, ...] = ("tests",)
    options: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


SUITES = (
    Suite(
        "umongo",
        "an ODM",
        "umongo==4.0.0",
        extras="motor",
    ),
    Suite(
        "cachelib",
        "a cache",
        "cachelib==0.17.0",
        ("pymongo", "pytest-xprocess"),
        tests=("tests/test_mongodb_cache.py",),
    ),
    Suite(
        "apscheduler",
        "a queue of jobs",
        "apscheduler==3.11.3",
        ("pymongo", "SQLAlchemy", "pytz", "anyio", "pytest-timeout", "tornado"),
        tests=("tests/test_jobstores.py",),
    ),
    Suite(
        "eve",
        "a web framework",
        "eve==2.1.0",
        ("testfixtures", "redis"),
        tests=("eve/tests",),
        options=("-o", "python_files=*.py", "-o", "python_classes=Test*"),
    ),
    Suite(
        "motor",
        "a driver, asyncio and Tornado",
        "motor==3.7.1",
        ("tornado", "aiohttp", "mockupdb"),
        tests=("test/asyncio_tests", "test/tornado_tests"),
    ),
    Suite(
        "fireworks",
        "an application: workflows",
        "fireworks==2.1.4",
        ("igraph", "matplotlib", "mongomock", "flask", "gunicorn"),
        tests=("fireworks",),
        options=("-o", "python_files=test_*.py *_tests.py"),
    ),
    Suite(
        "maggma",
        "an application: data pipelines",
        "maggma==0.77.1",
        (
            *("moto[s3]>=5.0", "montydb", "responses<0.27"),
            *("starlette", "httpx", "uvicorn", "fastapi"),
            *("pytest<9", "pytest-asyncio", "pytest-mock", "pytest-timeout"),
        ),
        tests=("tests",),
    ),
    Suite(
        "pymongo",
        "a driver, sync and asyncio",
        "pymongo==4.20.0",
        ("pytest-asyncio",),
        tests=tuple(
            f"test/{directory}test_{name}.py"
            for directory in ("", "asynchronous/")
            for name in ("bulk", "collection", "database", "grid_file", "gridfs", "gridfs_bucket")
        ),
    ),
)
