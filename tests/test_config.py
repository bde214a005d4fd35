"""Settings: where they come from, what counts more, and what a bad one says."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from timetracer import config as config_module
from timetracer.config import MODES, SETTINGS, UNSET, TraceConfig, resolve, settings_table
from timetracer.errors import ConfigError
from timetracer.stores import SUFFIXES

DEFAULTS = {
    "mode": "off",
    "cassette": None,
    "cassette_dir": Path("cassettes"),
    "compression": "none",
    "sample_rate": 1.0,
    "errors_only": False,
    "service": None,
    "env": None,
    "exclude_paths": (),
    "strict_order": False,
    "allow_repeats": False,
    "match_on": ("method", "url", "arguments"),
    "levels": ("order", "unified", "ignored", "ambient"),
    "ignore": (),
    "passthrough": (),
    "name_template": None,
    "max_request_body": 65536,
    "max_response_body": 65536,
    "redact": "auto",
    "redact_names": (),
    "redact_paths": (),
    "redact_patterns": (),
    "keep_names": (),
    "before_record": None,
    "accept_interrupted": False,
    "entropy": "off",
    "freeze_time": False,
}


def values(config: TraceConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in SETTINGS}


def resolved(tmp_path: Path, *given: Any, environ: Any = None, **overrides: Any) -> TraceConfig:
    return resolve(*given, environ=environ or {}, start=tmp_path, **overrides)


def test_the_class_and_the_table_hold_the_same_settings() -> None:
    fields = [field.name for field in dataclasses.fields(TraceConfig) if field.init]

    assert fields == list(SETTINGS)
    assert values(TraceConfig()) == DEFAULTS


def test_the_modes() -> None:
    assert {mode.name: (mode.reads, mode.records) for mode in MODES.values()} == {
        "off": ("never", "never"),
        "record": ("never", "always"),
        "replay": ("always", "never"),
        "once": ("when_present", "when_absent"),
        "new_episodes": ("when_present", "always"),
        "verify": ("always", "never"),
    }
    assert list(SUFFIXES) == ["none", "gzip"]


def test_nothing_given_is_the_default_with_an_absolute_directory(tmp_path: Path) -> None:
    config = resolved(tmp_path)

    assert values(config) == DEFAULTS | {"cassette_dir": tmp_path / "cassettes"}
    assert config.resolved
    assert not TraceConfig().resolved


def test_the_working_directory_is_where_paths_and_the_search_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.timetracer]\nmode = "once"\n')
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    monkeypatch.setenv("TIMETRACER_CASSETTE", "one.json")

    config = TraceConfig(cassette_dir="mine").resolve()

    assert config.mode == "once"
    assert config.cassette == tmp_path / "below" / "one.json"
    assert config.cassette_dir == tmp_path / "below" / "mine"


@pytest.mark.parametrize(
    ("argument", "environment", "project", "expected"),
    [
        (None, None, None, "off"),
        (None, None, "record", "record"),
        (None, "replay", "record", "replay"),
        ("once", "replay", "record", "once"),
        ("off", "replay", "record", "off"),
        ("record", "off", "replay", "off"),
        ("record", "OFF", None, "off"),
        ("record", "", None, "record"),
        (None, " Replay ", None, "replay"),
    ],
)
def test_argument_then_environment_then_pyproject_then_default(
    tmp_path: Path,
    argument: str | None,
    environment: str | None,
    project: str | None,
    expected: str,
) -> None:
    if project is not None:
        (tmp_path / "pyproject.toml").write_text(f'[tool.timetracer]\nmode = "{project}"\n')
    environ = {} if environment is None else {"TIMETRACER_MODE": environment}
    mode: Any = UNSET if argument is None else argument

    assert resolved(tmp_path, TraceConfig(mode=mode), environ=environ).mode == expected
    assert resolved(tmp_path, {"mode": mode}, environ=environ).mode == expected
    assert resolved(tmp_path, environ=environ, mode=mode).mode == expected


def test_an_override_counts_more_than_what_is_given(tmp_path: Path) -> None:
    given = TraceConfig(mode="record", service="shop")

    config = resolved(tmp_path, given, mode="replay", service=UNSET)

    assert (config.mode, config.service) == ("replay", "shop")


def test_none_that_is_given_counts_more_than_the_environment(tmp_path: Path) -> None:
    environ = {"TIMETRACER_CASSETTE": "x.json"}

    assert resolved(tmp_path, TraceConfig(cassette=None), environ=environ).cassette is None


def test_a_resolved_config_is_looked_up_no_more_but_off_still_counts(tmp_path: Path) -> None:
    config = resolved(tmp_path, mode="record")
    environ = {"TIMETRACER_SERVICE": "other", "TIMETRACER_MODE": "replay"}

    assert resolve(config, environ=environ, start=tmp_path / "elsewhere") == config
    assert resolve(config, environ=environ, service="mine").service == "mine"
    assert resolve(config, environ={"TIMETRACER_MODE": "off"}).mode == "off"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("TIMETRACER_MODE", "new_episodes", {"mode": "new_episodes"}),
        ("TIMETRACER_COMPRESSION", "gzip", {"compression": "gzip"}),
        ("TIMETRACER_SAMPLE_RATE", "0.1", {"sample_rate": 0.1}),
        ("TIMETRACER_ERRORS_ONLY", "true", {"errors_only": True}),
        ("TIMETRACER_ERRORS_ONLY", "YES", {"errors_only": True}),
        ("TIMETRACER_ERRORS_ONLY", "0", {"errors_only": False}),
        ("TIMETRACER_ERRORS_ONLY", "Off", {"errors_only": False}),
        ("TIMETRACER_SERVICE", "shop", {"service": "shop"}),
        ("TIMETRACER_ENV", "staging", {"env": "staging"}),
        ("TIMETRACER_EXCLUDE_PATHS", "/a, /b/*,", {"exclude_paths": ("/a", "/b/*")}),
        ("TIMETRACER_PASSTHROUGH", "motor,pymongo", {"passthrough": ("motor", "pymongo")}),
        ("TIMETRACER_NAME_TEMPLATE", "{date}/{path}", {"name_template": "{date}/{path}"}),
        ("TIMETRACER_MAX_RESPONSE_BODY", "0", {"max_response_body": 0}),
        ("TIMETRACER_LEVELS", "exact", {"levels": ()}),
        ("TIMETRACER_LEVELS", "unified, order", {"levels": ("order", "unified")}),
        ("TIMETRACER_IGNORE", "filter.a,documents.*.b", {"ignore": ("filter.a", "documents.*.b")}),
        ("TIMETRACER_REDACT", "on", {"redact": True}),
        ("TIMETRACER_REDACT", "off", {"redact": False}),
        ("TIMETRACER_REDACT", "Auto", {"redact": "auto"}),
        ("TIMETRACER_REDACT_PATHS", "a.*.b,c", {"redact_paths": ("a.*.b", "c")}),
        ("TIMETRACER_ACCEPT_INTERRUPTED", "on", {"accept_interrupted": True}),
    ],
)
def test_environment_variables(
    tmp_path: Path, name: str, text: str, expected: dict[str, Any]
) -> None:
    defaults = DEFAULTS | {"cassette_dir": tmp_path / "cassettes"}

    assert values(resolved(tmp_path, environ={name: text})) == defaults | expected


def test_commas_in_a_pattern_belong_to_it_in_braces_brackets_or_after_a_backslash(
    tmp_path: Path,
) -> None:
    environ = {"TIMETRACER_REDACT_PATTERNS": r"\d{3,4}-\d+, [,;]x,a\,b"}

    patterns = resolved(tmp_path, environ=environ).redact_patterns

    assert [pattern.pattern for pattern in patterns] == [r"\d{3,4}-\d+", "[,;]x", r"a\,b"]


def test_the_directory_has_an_alias(tmp_path: Path) -> None:
    both = {"TIMETRACER_DIR": "alias", "TIMETRACER_CASSETTE_DIR": "/name"}

    assert resolved(tmp_path, environ=both).cassette_dir == Path("/name")
    assert resolved(tmp_path, environ={"TIMETRACER_DIR": "a"}).cassette_dir == tmp_path / "a"


def test_processes_of_a_run_tell_each_other_by_a_variable_that_is_no_setting(
    tmp_path: Path,
) -> None:
    assert resolved(tmp_path, environ={"TIMETRACER_RUN_ID": "abc"}).mode == "off"


def test_pyproject_is_the_nearest_with_a_table_and_its_paths_count_from_it(tmp_path: Path) -> None:
    inner = tmp_path / "package" / "src"
    inner.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text(
        "[tool.timetracer]\ncassette_dir = 'tapes'\nsample_rate = 1\nerrors_only = true\n"
        "exclude_paths = ['/health']\n"
    )
    (tmp_path / "package" / "pyproject.toml").write_text("[project]\nname = 'timetracer-user'\n")

    config = resolved(inner)

    assert config.cassette_dir == tmp_path / "tapes"
    assert config.sample_rate == 1.0
    assert config.errors_only is True
    assert config.exclude_paths == ("/health",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tool.timetracer]\nsampel_rate = 1", "Did you mean sample_rate?"),
        ("[tool.timetracer]\nsample_rate = 2", "cannot be 2"),
        ("[tool.timetracer]\nerrors_only = 'true'", "cannot be 'true'"),
        ("[tool.timetracer]\nmode = ", "it is no TOML"),
        ("[tool]\ntimetracer = 3", "is 3 and not a table"),
    ],
)
def test_a_bad_pyproject_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)

    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        resolved(tmp_path)

    assert str(tmp_path / "pyproject.toml") in str(caught.value)
    assert caught.value.source == "pyproject.toml"


@pytest.mark.parametrize(
    "text",
    [
        "[project\nname = broken",
        "[project\ndependencies = ['timetracer']",
        "[project]\ndependencies = ['timetracer']",
        "\xff",
    ],
)
def test_a_pyproject_without_our_table_is_never_our_business(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text, encoding="latin-1")

    assert resolved(tmp_path).mode == "off"


@pytest.mark.parametrize(
    ("text", "is_error"),
    [
        ("[tool.timetracer]\nmode = 'record'", True),
        ("[ tool . 'timetracer' ]\nmode = 'record'", True),
        ("tool.timetracer.mode = 'record'", True),
        ("[tool]\ntimetracer = { mode = 'record' }", True),
        ("[project]\ndependencies = ['timetracer']", False),
        ("[tool.other]\nmode = 'record'", False),
    ],
)
def test_without_a_toml_reader_only_a_table_of_ours_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, is_error: bool
) -> None:
    monkeypatch.setitem(sys.modules, "tomllib", None)
    monkeypatch.setitem(sys.modules, "tomli", None)
    (tmp_path / "pyproject.toml").write_text(text)

    if not is_error:
        assert resolved(tmp_path).mode == "off"
        return
    with pytest.raises(ConfigError, match="pip install tomli"):
        resolved(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("mode", "recrod", 'Did you mean record?\nAllowed: "off", "record", "replay"'),
        ("mode", None, '"off"'),
        ("mode", ["off"], '"off"'),
        ("cassette", 3, "a path, or None"),
        ("cassette", "", "a path, or None"),
        ("cassette_dir", None, "a path"),
        ("cassette_dir", "a\0b", "a path"),
        ("compression", "zip", '"none", "gzip"'),
        ("sample_rate", 1.5, "a number from 0 to 1"),
        ("sample_rate", float("nan"), "a number from 0 to 1"),
        ("sample_rate", True, "a number from 0 to 1"),
        ("sample_rate", "0.5", "a number from 0 to 1"),
        ("errors_only", 1, "True or False"),
        ("service", "", "a text, or None"),
        ("exclude_paths", "/health", "Write one name as a list too"),
        ("exclude_paths", ["health"], "'health' has no / in front"),
        ("exclude_paths", 5, "a list of path prefixes"),
        ("passthrough", ["mongo"], "Did you mean pymongo?"),
        ("name_template", "{pth}", "{pth} is not one of {method} {path}"),
        ("name_template", "../{path}", "leads out of the directory"),
        ("max_request_body", -1, "0 or more"),
        ("max_request_body", 1.5, "0 or more"),
        ("redact", "sometimes", '"auto", True or False'),
        ("redact", None, '"auto", True or False'),
        ("redact_names", [""], "a list of names"),
        ("redact_paths", ["a..b"], "'a..b' has an empty part"),
        ("redact_patterns", ["(a"], "'(a' is no regular expression"),
        ("redact_patterns", ["a*"], "'a*' matches the empty text"),
        ("redact_patterns", [re.compile(b"a")], "is for bytes"),
        ("before_record", "hook", "a function of one event"),
    ],
)
def test_a_bad_argument_says_what_is_allowed(name: str, value: Any, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TraceConfig(**{name: value})

    assert allowed in str(caught.value)
    assert f"The setting {name} (argument, {name}=) cannot be" in str(caught.value)
    assert (caught.value.setting, caught.value.source) == (name, "argument")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("TIMETRACER_SAMPLE_RATE", "ten"),
        ("TIMETRACER_ERRORS_ONLY", "maybe"),
        ("TIMETRACER_MAX_REQUEST_BODY", "64k"),
        ("TIMETRACER_MODE", "rec"),
        ("TIMETRACER_PASSTHROUGH", "motor,mongo"),
    ],
)
def test_a_bad_variable_is_named_with_its_value(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=f"environment, {name}") as caught:
        resolved(tmp_path, environ={name: text}, mode="off", sample_rate=1, errors_only=True)

    assert text.split(",")[-1] in str(caught.value)
    assert caught.value.source == "environment"


def test_a_mistyped_argument_is_a_config_error_with_the_nearest_name(tmp_path: Path) -> None:
    wrong: dict[str, Any] = {"sampel_rate": 0.5}

    for attempt in (
        lambda: TraceConfig(**wrong),
        lambda: resolved(tmp_path, wrong),
        lambda: resolved(tmp_path, **wrong),
    ):
        with pytest.raises(ConfigError) as caught:
            attempt()
        assert str(caught.value) == (
            "There is no setting sampel_rate (argument).\n"
            "Did you mean sample_rate?\n"
            "Settings are arguments of TraceConfig, TIMETRACER_<NAME> in the environment,"
            " or keys of [tool.timetracer] in pyproject.toml."
        )


def test_a_mistyped_variable_is_a_config_error_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Did you mean TIMETRACER_MODE\?") as caught:
        resolved(tmp_path, environ={"TIMETRACER_MOED": "record"})

    assert caught.value.setting == "TIMETRACER_MOED"


def test_a_hook_is_an_argument_only(tmp_path: Path) -> None:
    assert TraceConfig(before_record=len).before_record is len
    with pytest.raises(ConfigError, match="There is no setting TIMETRACER_BEFORE_RECORD"):
        resolved(tmp_path, environ={"TIMETRACER_BEFORE_RECORD": "len"})


def test_a_config_can_be_compared_hashed_copied_and_sent_to_another_process() -> None:
    config = TraceConfig(mode="record", redact_patterns=["a+"], exclude_paths={"/b", "/a"})

    assert config.exclude_paths == ("/a", "/b")
    assert config == TraceConfig(
        mode="record", redact_patterns=(re.compile("a+"),), exclude_paths=["/a", "/b"]
    )
    assert config != TraceConfig(
        mode="record", redact_patterns=["a+"], exclude_paths=["/a", "/b"], env=None
    )
    assert hash(config) == hash(copy.deepcopy(config))
    assert pickle.loads(pickle.dumps(config)) == config
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.mode = "off"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("pattern", "path", "is_excluded"),
    [
        ("/health", "/health", True),
        ("/health", "/health/live", True),
        ("/health", "/healthy", False),
        ("/health/", "/health/live", True),
        ("/static/*", "/static/css/a.css", True),
        ("/static/*", "/static", False),
        ("*.css", "/static/css/a.css", True),
        ("/", "/anything", True),
    ],
)
def test_excluded_paths(pattern: str, path: str, is_excluded: bool) -> None:
    assert TraceConfig(exclude_paths=[pattern]).excludes(path) is is_excluded


def test_the_table_for_the_documentation_has_a_row_for_each_setting() -> None:
    lines = settings_table().splitlines()

    assert lines[0] == "| Setting | Values | Default | Environment | What it does |"
    assert [line.split("`")[1] for line in lines[2:]] == list(SETTINGS)
    assert (
        "| `sample_rate` | a number from 0 to 1 | `1.0` | `TIMETRACER_SAMPLE_RATE` |"
        " The share of requests that is recorded. |"
    ) in lines
    assert "`TIMETRACER_CASSETTE_DIR`, `TIMETRACER_DIR`" in settings_table()


def test_every_setting_names_its_own_variable() -> None:
    names = [name for setting in SETTINGS.values() for name in setting.environment]

    assert len(names) == len(set(names))
    assert not set(names) & set(config_module.INTERNAL_ENVIRONMENT)
