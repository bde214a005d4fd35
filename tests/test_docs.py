"""Every Python, shell and JSON block of README.md and docs/ works as written."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import snippets
from tests.support.offline import ROOT, Rules, run_offline, run_program
from tests.support.server import ServerMissing
from tests.support.snippets import Block, Story
from timetracer.config import MODES, settings_table

DOCUMENTS = snippets.documents()
BLOCKS = [block for document in DOCUMENTS for block in snippets.blocks_of(document)]


@pytest.fixture
def story(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Story]:
    """The document that the test names, in a directory of its own."""
    directory = tmp_path / "reader"
    directory.mkdir()
    story = Story(request.param, directory)
    yield story
    story.end()


@pytest.mark.parametrize("story", DOCUMENTS, indirect=True)
def test_the_blocks_of_a_document_work_one_after_the_other(story: Story) -> None:
    try:
        before = ""
        for block in snippets.blocks_of(story.document):
            if block.language in snippets.RUN_LANGUAGES or before == "bash":
                story.run(block)
            before = block.language
    except ServerMissing as missing:
        pytest.skip(str(missing))
    assert_equal_requests_have_equal_answers(story)


def assert_equal_requests_have_equal_answers(story: Story) -> None:
    first: dict[str, str] = {}
    for command, answer in story.answers():
        varies = any(
            document == story.document and part in command for document, part in snippets.VARIES
        )
        assert varies or first.setdefault(command, answer) == answer, f"curl {command}"


LIMITS = """
    import threading
    import timetracer
    from pymongo import MongoClient, WriteConcern, monitoring
    from timetracer.plugins import enable_pymongo

    class Listener(monitoring.CommandListener):
        heard = []
        def started(self, event):
            self.heard.append(event.command_name)
        def succeeded(self, event): pass
        def failed(self, event): pass

    enable_pymongo()
    with timetracer.use_cassette("limits.json") as session:
        client = MongoClient("mongodb://localhost:27017", event_listeners=[Listener()])
        orders = client.shop.orders
        unacknowledged = orders.with_options(write_concern=WriteConcern(w=0))
        print(unacknowledged.insert_one({"_id": 1}).acknowledged)
        thread = threading.Thread(target=orders.count_documents, args=({"_id": 7},))
        thread.start()
        thread.join()
        print(orders.find_one({"_id": 1}) is not None)
    print(Listener.heard, file=sys.stderr)
"""


@pytest.mark.parametrize("story", ["docs/limits.md"], indirect=True)
def test_command_listeners_are_told_the_same_in_replay(story: Story) -> None:
    try:
        program = story.write("script.py", "import sys\n" + textwrap.dedent(LIMITS))
    except ServerMissing as missing:
        pytest.skip(str(missing))
    live = run_program(program, cwd=story.directory)
    replayed = run_offline(program, cwd=story.directory, rules=Rules(threads="driver"))
    assert "insert" in live.stderr and replayed.stderr == live.stderr
    assert replayed.stdout == live.stdout and live.stdout.startswith("False\n")


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_a_block_is_of_a_language_that_is_run_or_is_text(block: Block) -> None:
    assert block.language in (*snippets.RUN_LANGUAGES, "text"), (
        f"{block.place}: a block in {block.language or 'no language'!r} would not be run; "
        "name one that is, or text"
    )
    if block.language == "python":
        ast.parse(block.text)


def test_no_block_is_written_in_a_form_that_the_runner_does_not_see() -> None:
    for document in DOCUMENTS:
        text = (ROOT / document).read_text(encoding="utf-8")
        fences = len(re.findall(r"^\s*(?:```|~~~)", text, re.MULTILINE))
        assert fences == 2 * len(snippets.blocks_of(document)), document


def test_nothing_is_supplied_that_no_block_needs() -> None:
    assert list(snippets.unsupplied()) == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_files_and_headings_that_exist(document: str) -> None:
    file = ROOT / document
    for target in re.findall(r"\]\(([^)\s]+)\)", file.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (file.parent / path).resolve() if path else file
        assert linked.exists(), f"{document} links to {target}"
        assert not anchor or anchor in anchors(linked), f"{document} links to {target}"


def anchors(file: Path) -> list[str]:
    """The headings of a document as GitHub makes anchors of them."""
    titles = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]


def test_the_index_leads_to_every_document() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for document in DOCUMENTS:
        name = Path(document).name
        assert name in ("README.md", "index.md") or f"]({name})" in index, name


def test_the_configuration_page_has_the_table_of_settings() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert settings_table() in page, "docs/configuration.md: print(config.settings_table())"


def test_the_configuration_page_has_the_table_of_modes() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    for mode in MODES.values():
        row = (f"`{mode.name}`", mode.reads, mode.records, mode.description)
        assert f"| {' | '.join(row)} |".replace("_", " ") in page.replace("_", " "), mode.name


def test_the_readme_fits_one_screen_and_has_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("\n") <= 80
    assert "\npython dev.py demo" in text and "\npython dev.py test" in text


def test_the_login_application_is_the_one_that_the_redaction_page_shows() -> None:
    source = (ROOT / "examples" / "login_app" / "app.py").read_text(encoding="utf-8")
    code = source.partition('"""\n\n')[2].partition('"""\n\n')[2] or source.partition('"""\n\n')[2]
    blocks = [block.text for block in snippets.blocks_of("docs/redaction.md")]
    assert f"# app.py\n{code}" in blocks
