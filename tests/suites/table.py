"""The suites: packages from PyPI that ship tests which use a MongoDB server, a row each."""

from __future__ import annotations

import json
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
        text_indexes: whether its tests make text indexes, though few search in one.
    """

    name: str
    kind: str
    release: str
    requirements: tuple[str, ...] = ()
    extras: str = ""
    tests: tuple[str, ...] = ("tests",)
    options: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    text_indexes: bool = False


_OF_BEANIE = (
    *("pytest-cov", "dnspython", "asgi-lifespan"),
    *("pydantic-settings", "pydantic-extra-types", "pydantic[email]"),
)

SUITES = (
    Suite(
        "beanie",
        "an ODM, asyncio",
        "beanie==2.1.0",
        ("pytest-asyncio>=1.3", "time-machine", "httpx", "fastapi<0.130", *_OF_BEANIE),
        environment={"PYTHONHASHSEED": "0"},  # it stores a set
        text_indexes=True,
    ),
    Suite(
        "beanie-motor",
        "an ODM, on Motor",
        "beanie==1.30.0",
        ("pytest<9", "pytest-asyncio<0.24", "httpx<0.28", "fastapi<0.116", *_OF_BEANIE),
        environment={"PYTHONHASHSEED": "0"},  # it stores a set
        text_indexes=True,
    ),
    Suite(
        "odmantic",
        "an ODM, on PyMongo and Motor",
        "odmantic==1.0.2",
        (
            *("pytest<9", "pytest-asyncio==0.21.2", "pytest-benchmark", "inline-snapshot~=0.6.0"),
            *("pydantic<2.11", "fastapi<0.110", "async-asgi-testclient", "asyncmock", "pytz"),
            *("requests", "httpx~=0.24.1", "uvicorn"),
        ),
        options=("-W", "default", "-o", "asyncio_mode=auto"),
    ),
    Suite(
        "umongo",
        "an ODM",
        "umongo==4.0.0",
        extras="motor",
    ),
    Suite(
        "mongoengine",
        "an ODM",
        "mongoengine==0.29.3",  # of whose tests the distribution holds those without documents
        ("mongomock", "blinker", "Pillow"),
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
        options=("--timeout=600",),  # its own two minutes are short for a million fields
        environment={"PYTHONHASHSEED": "0"},  # it makes stages of a pipeline of a set
    ),
    Suite(
        "optimade",
        "an application: a server of materials",
        "optimade==1.5.0",
        ("jsondiff", "pytest>=8.3,<10", "pytest-asyncio>=1,<2"),
        extras="server,http-client",
        tests=("tests",),
        options=(
            *("-W", "ignore:Unable to find requested config file"),
            *("-o", "asyncio_default_fixture_loop_scope=function"),
        ),
        environment={
            "PYTHONHASHSEED": "0",  # its validator goes through sets, and stops where one fails
            "OPTIMADE_DATABASE_BACKEND": "mongodb",
            "OPTIMADE_INDEX_BASE_URL": "http://localhost:5001",
            "OPTIMADE_ALIASES": json.dumps(
                {
                    "structures": {
                        "id": "task_id",
                        "immutable_id": "_id",
                        "chemical_formula_descriptive": "pretty_formula",
                        "chemical_formula_reduced": "pretty_formula",
                        "chemical_formula_anonymous": "formula_anonymous",
                    }
                }
            ),
            "OPTIMADE_LENGTH_ALIASES": json.dumps(
                {
                    "structures": {
                        "elements": "nelements",
                        "elements_ratios": "nelements",
                        "cartesian_site_positions": "nsites",
                        "species_at_sites": "nsites",
                    }
                }
            ),
            "OPTIMADE_PROVIDER_FIELDS": json.dumps({"structures": ["band_gap", "chemsys"]}),
        },
    ),
    Suite(
        "langgraph",
        "a store of an agent's checkpoints",
        "langgraph-checkpoint-mongodb==0.5.1",
        ("langgraph", "langchain-openai", "langchain-ollama", "pytest-asyncio", "pytest-mock"),
        tests=("tests/unit_tests", "tests/integration_tests"),
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
