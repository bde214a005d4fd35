"""The file store: whole or not at all, told by its suffix, and never outside its directory."""

from __future__ import annotations

import errno
import gzip
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from timetracer.errors import (
    CassetteFormatError,
    CassetteNotFoundError,
    CassettePathError,
    CassetteWriteError,
)
from timetracer.stores import Store, files, find_latest, split_suffix, write_alone
from timetracer.stores.files import FileStore


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "cassettes")


def tree(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_a_file_store_is_a_store(store: FileStore) -> None:
    as_store: Store = store

    assert as_store.exists("x.json") is False


@pytest.mark.parametrize("name", ["x.json", "x.json.gz", "sub/deep/x.json", "ünïcode.json"])
def test_what_is_written_is_read(store: FileStore, name: str) -> None:
    store.write(name, [b'{"a":', b"", b"1}"])

    assert store.read(name) == b'{"a":1}'
    assert store.exists(name)
    assert store.names() == [name]
    assert abs(store.modified(name) - time.time()) < 60


def test_gzip_is_told_by_the_suffix_and_its_bytes_are_stable(store: FileStore) -> None:
    store.write("x.json", [b"[]"])
    store.write("x.json.gz", [b"[", b"]"])
    first = (store.directory / "x.json.gz").read_bytes()
    store.write("x.json.gz", [b"[", b"]"])

    assert (store.directory / "x.json").read_bytes() == b"[]"
    assert gzip.decompress(first) == b"[]"
    assert (store.directory / "x.json.gz").read_bytes() == first
    assert first[4:8] == b"\0\0\0\0"


def test_files_have_the_permissions_of_any_new_file(store: FileStore) -> None:
    store.write("x.json", [b"[]"])
    (store.directory / "other").touch()

    modes = {entry.stat().st_mode for entry in store.directory.iterdir()}
    assert len(modes) == 1


def test_a_failing_source_leaves_the_old_file_and_nothing_else(store: FileStore) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise KeyboardInterrupt

    store.write("x.json", [b"old"])
    with pytest.raises(KeyboardInterrupt):
        store.write("x.json", broken())

    assert store.read("x.json") == b"old"
    assert tree(store.directory) == ["x.json"]


@pytest.mark.parametrize("name", ["x.json", "x.json.gz"])
def test_a_full_disk_is_a_clear_error_and_loses_nothing(store: FileStore, name: str) -> None:
    resource = pytest.importorskip("resource", reason="no file size limits on this system")
    assert resource.RLIMIT_FSIZE is not None
    store.write(name, [b"old"])
    program = (
        "import os, resource, sys\n"
        "from pathlib import Path\n"
        "from timetracer.errors import CassetteWriteError\n"
        "from timetracer.stores.files import FileStore\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "store = FileStore(Path(sys.argv[1]))\n"
        "for write in (\n"
        "    lambda: store.write(sys.argv[2], (os.urandom(1000) for _ in range(100))),\n"
        "    lambda: store.open_partial('p.partial').write(bytes(100_000)),\n"
        "):\n"
        "    try:\n"
        "        write()\n"
        "    except CassetteWriteError as error:\n"
        "        print(error)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, str(store.directory), name],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert done.stdout.count("cannot be written: File too large.\n") == 2
    assert done.stdout.count("raise it (ulimit -f), or record less.\n") == 2
    assert f"{name} cannot be written" in done.stdout
    assert store.read(name) == b"old"
    assert tree(store.directory) == ["p.partial", name]
    assert (store.directory / "p.partial").read_bytes() == b""


def test_a_directory_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    store = FileStore(tmp_path / "file" / "cassettes")

    for attempt in (lambda: store.write("x.json", [b"[]"]), lambda: store.open_partial("x")):
        with pytest.raises(CassetteWriteError, match="A parent of it is a file") as caught:
            attempt()
        assert str(tmp_path / "file") in caught.value.path
    assert store.exists("x.json") is False
    assert store.names() == []
    store.remove("x.json")


def test_a_file_that_may_not_be_read(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bytes:  # root is refused nothing, so the refusal is played
        raise PermissionError(errno.EACCES, "Permission denied")

    store.write("x.json", [b"[]"])
    monkeypatch.setattr(Path, "read_bytes", refuse)

    with pytest.raises(CassetteFormatError, match=r"may not be read \(Permission denied\)"):
        store.read("x.json")


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege here")
def test_paths_that_no_file_can_have(store: FileStore) -> None:
    store.directory.mkdir()
    (store.directory / "loop.json").symlink_to(store.directory / "loop.json")

    with pytest.raises(CassettePathError, match="cannot be a cassette's path"):
        store.read("loop.json")
    with pytest.raises(CassettePathError, match="Choose a shorter name"):
        store.read("x" * 300 + ".json")
    with pytest.raises(CassetteWriteError, match="Choose a shorter name"):
        store.write("x" * 300 + ".json", [b"[]"])


@pytest.mark.parametrize(
    ("code", "strerror", "remedy"),
    [
        ("ENOSPC", "No space left on device", "Free some space"),
        ("EROFS", "Read-only file system", "The file system is read-only"),
        ("EACCES", "Permission denied", "Make the directory writable"),
        ("EIO", "Input/output error", "TIMETRACER_CASSETTE_DIR"),
    ],
)
def test_each_cause_of_a_failed_write_has_its_remedy(
    store: FileStore, monkeypatch: pytest.MonkeyPatch, code: str, strerror: str, remedy: str
) -> None:
    def fail(_: int) -> None:
        raise OSError(getattr(errno, code), strerror)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(CassetteWriteError, match=f"cannot be written: {strerror}") as caught:
        store.write("x.json", [b"[]"])

    assert remedy in str(caught.value)
    assert tree(store.directory) == []


def test_a_file_that_need_not_last_does_not_wait_for_the_disk(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: pytest.fail("waits for the disk"))

    FileStore(store.directory, lasting=False).write("x.json", [b"[", b"]"])

    assert store.read("x.json") == b"[]"


GZIPPED = gzip.compress(b'{"events": []}' * 50, mtime=0)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.json", b"", "x.json is empty"),
        ("x.json.gz", b"", "x.json.gz is empty"),
        ("x.json", GZIPPED, r"is gzip, though its name .*\n.*rename it to .*x\.json\.gz$"),
        ("x.json.gz", b"{}", r"is not compressed, though .*\n.*rename it to .*x\.json$"),
        ("x.yaml", GZIPPED, r"rename it to .*x\.yaml\.json\.gz$"),
        ("x.json.gz", GZIPPED[:30], "is cut short or damaged"),
        ("x.json.gz", GZIPPED[:3], "is cut short or damaged"),
        ("x.json.gz", GZIPPED[:15] + b"\xff\xff" + GZIPPED[17:], "is cut short or damaged"),
        ("x.json.gz", GZIPPED[:-8] + bytes(8), "is cut short or damaged"),
        ("x.json.gz", GZIPPED + b"junk", "is cut short or damaged"),
    ],
)
def test_content_that_is_not_what_the_suffix_says(
    tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(data)

    with pytest.raises(CassetteFormatError, match=message) as caught:
        FileStore(tmp_path).read(name)

    assert caught.value.path.endswith(name)


def test_every_cut_of_a_gzip_file_is_a_cassette_error(tmp_path: Path) -> None:
    for length in range(len(GZIPPED)):
        (tmp_path / "x.json.gz").write_bytes(GZIPPED[:length])
        with pytest.raises(CassetteFormatError):
            FileStore(tmp_path).read("x.json.gz")


def test_a_missing_cassette_names_the_nearest_and_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = FileStore(Path("cassettes"))
    store.write("GET__users.json", [b"[]"])
    store.write("sub/b.json.gz", [b"[]"])

    with pytest.raises(CassetteNotFoundError) as caught:
        store.read("GET__user.json")
    assert str(caught.value) == (
        f"There is no cassette {os.path.join('cassettes', 'GET__user.json')}.\n"
        "Nearest: GET__users.json\n"
        "To record it, run with TIMETRACER_MODE=record"
    )
    with pytest.raises(CassetteNotFoundError, match=r"Nearest: sub/b\.json\.gz"):
        store.read("sub/b.json")
    with pytest.raises(CassetteNotFoundError, match="There is no cassette"):
        store.modified("none.json")
    with pytest.raises(FileNotFoundError):
        store.read("x.json/y.json")


def test_a_directory_is_no_cassette(store: FileStore) -> None:
    (store.directory / "x.json").mkdir(parents=True)

    assert store.exists("x.json") is False
    with pytest.raises(CassettePathError, match="is a directory"):
        store.read("x.json")
    with pytest.raises(CassettePathError, match="is a directory"):
        store.write("x.json", [b"[]"])
    with pytest.raises(CassettePathError, match="is a directory"):
        FileStore.for_path(store.directory / "x.json")
    with pytest.raises(CassettePathError, match=r"such as .*new.cassette\.json"):
        FileStore.for_path(f"{store.directory}/new/")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.json")

    with pytest.raises(CassettePathError, match="special file"):
        FileStore(tmp_path).read("x.json")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        ".",
        "../x.json",
        "a/../../x.json",
        "a/./x.json",
        "a//x.json",
        "/etc/x.json",
        "//host/x.json",
        "C:x.json",
        "c:/x.json",
        "..\\x.json",
        "a\\b.json",
        "x\0.json",
        "\ud800.json",
    ],
)
def test_a_name_never_leaves_the_directory(store: FileStore, name: str) -> None:
    for attempt in (
        lambda: store.read(name),
        lambda: store.write(name, [b"[]"]),
        lambda: store.exists(name),
        lambda: store.remove(name),
        lambda: store.modified(name),
        lambda: store.open_partial(name),
        lambda: store.locate(name),
    ):
        with pytest.raises(CassettePathError):
            attempt()
    assert not store.directory.exists()


@pytest.mark.parametrize("prefix", ["../", "/etc/", "a/../../b"])
def test_a_prefix_never_leaves_the_directory(store: FileStore, prefix: str) -> None:
    with pytest.raises(CassettePathError):
        store.names(prefix)


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege here")
def test_a_linked_parent_never_leaves_the_directory(store: FileStore, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    store.write("inside/x.json", [b"[]"])
    (store.directory / "link").symlink_to(tmp_path / "outside")
    (store.directory / "alias").symlink_to(store.directory / "inside")

    with pytest.raises(CassettePathError, match="leads out of"):
        store.write("link/x.json", [b"[]"])
    assert store.read("alias/x.json") == b"[]"
    assert store.names() == ["inside/x.json"]
    assert tree(tmp_path / "outside") == []


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege here")
def test_a_directory_that_is_a_link_itself_is_fine(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")

    FileStore(tmp_path / "link").write("sub/x.json", [b"[]"])

    assert tree(tmp_path / "real") == ["sub", "sub/x.json"]


def test_a_path_that_a_developer_gives_may_lie_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    for path in ("../x.json", tmp_path / "x.json", f"{tmp_path}/elsewhere/../x.json"):
        assert FileStore.for_path(path) == (FileStore(tmp_path), "x.json")
    with pytest.raises(CassettePathError, match="cannot name a cassette"):
        FileStore.for_path("")
    with pytest.raises(CassettePathError, match="cannot name a cassette"):
        FileStore.for_path("a\0b")


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege here")
def test_a_link_that_a_developer_gives_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    store, name = FileStore.for_path(tmp_path / "link.json")

    store.write(name, [b"[]"])

    assert (tmp_path / "real.json").read_bytes() == b"[]"
    assert (tmp_path / "link.json").is_symlink()


def test_places_are_told_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert FileStore(tmp_path / "a").locate("sub/x.json") == os.path.join("a", "sub", "x.json")
    assert FileStore(tmp_path.parent).locate("x.json") == str(tmp_path.parent / "x.json")


@pytest.mark.parametrize("settled_after", [3600.0, -3600.0], ids=["changing", "unchanged"])
def test_names_by_prefix(
    store: FileStore, monkeypatch: pytest.MonkeyPatch, settled_after: float
) -> None:
    monkeypatch.setattr(files, "_SETTLED_SECONDS", settled_after)
    for name in ("a.json", "a.2.json", "b/a.json.gz", "b/c/d.json", "a-dir/x.json"):
        store.write(name, [b"[]"])
    store.open_partial("a.json.partial").close()
    (store.directory / ".timetracer-1-1.tmp").touch()

    assert store.names() == [
        "a-dir/x.json", "a.2.json", "a.json", "a.json.partial", "b/a.json.gz", "b/c/d.json",
    ]  # fmt: skip
    assert store.names("a.") == ["a.2.json", "a.json", "a.json.partial"]
    assert store.names("b/") == ["b/a.json.gz", "b/c/d.json"]
    assert store.names("b/a") == ["b/a.json.gz"]
    assert store.names("nothing/here") == []


def test_a_directory_is_read_once_until_it_changes(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_SETTLED_SECONDS", -3600.0)
    store.write("a.json", [b"[]"])
    assert store.names() == ["a.json"]
    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", None)
        assert store.names("a") == ["a.json"]
        assert store.names("b") == []

    (store.directory / "b.json").write_bytes(b"[]")
    os.utime(store.directory, (1, 1))
    assert store.names() == ["a.json", "b.json"]
    store.remove("a.json")
    os.utime(store.directory, (2, 2))
    assert store.names() == ["b.json"]


def test_a_directory_that_changed_just_now_is_read_each_time(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_SETTLED_SECONDS", 3600.0)
    reads: list[object] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: reads.append(path) or scandir(path))
    store.write("a.json", [b"[]"])
    reads.clear()
    assert [store.names(), store.names()] == [["a.json"], ["a.json"]]
    assert reads == [store.directory, store.directory]


def test_removing_is_no_error_where_nothing_is(store: FileStore) -> None:
    store.write("x.json", [b"[]"])
    store.remove("x.json")
    store.remove("x.json")

    assert store.exists("x.json") is False


def test_a_partial_file_grows_with_each_write_and_can_be_read_meanwhile(store: FileStore) -> None:
    partial = store.open_partial("sub/x.json.gz.partial")
    partial.write(b"one\n")
    assert store.read("sub/x.json.gz.partial") == b"one\n"
    partial.write(b"two\n")
    partial.close()
    partial.close()

    again = store.open_partial("sub/x.json.gz.partial")
    again.write(b"three\n")

    assert again.path == store.locate("sub/x.json.gz.partial")
    assert store.read("sub/x.json.gz.partial") == b"one\ntwo\nthree\n"
    again.discard()
    again.discard()
    assert store.names() == []


def test_a_partial_file_is_discarded_after_the_working_directory_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    partial = FileStore(Path("tapes")).open_partial("x.partial")
    monkeypatch.chdir(tmp_path.parent)

    partial.discard()

    assert tree(tmp_path) == ["tapes"]


def test_half_files_of_killed_processes_are_swept_once_they_are_old(store: FileStore) -> None:
    store.directory.mkdir()
    for name, age in ((".timetracer-7-1.tmp", 7200), (".timetracer-7-2.tmp", 10), ("x.tmp", 7200)):
        (store.directory / name).touch()
        os.utime(store.directory / name, (time.time() - age,) * 2)

    store.write("x.json", [b"[]"])

    assert tree(store.directory) == [".timetracer-7-2.tmp", "x.json", "x.tmp"]


def test_the_newer_of_two_suffixes_is_found(store: FileStore) -> None:
    assert find_latest(store, "sub/x") is None
    store.write("sub/x.json", [b"1"])
    store.write("sub/x.json.gz", [b"2"])

    os.utime(store.directory / "sub/x.json", (1000, 1000))
    assert find_latest(store, "sub/x") == "sub/x.json.gz"
    os.utime(store.directory / "sub/x.json.gz", (900, 900))
    assert find_latest(store, "sub/x") == "sub/x.json"


def test_writing_one_suffix_removes_the_other_once_it_is_written(store: FileStore) -> None:
    def broken() -> Iterator[bytes]:
        raise RuntimeError
        yield b""

    write_alone(store, "x.json", [b"1"])
    write_alone(store, "y.json", [b"1"])
    with pytest.raises(RuntimeError):
        write_alone(store, "x.json.gz", broken())
    assert store.names() == ["x.json", "y.json"]

    write_alone(store, "x.json.gz", [b"2"])
    assert store.names() == ["x.json.gz", "y.json"]
    write_alone(store, "x.json", [b"3"])
    assert store.names() == ["x.json", "y.json"]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a/x.json", ("a/x", ".json")),
        ("x.json.gz", ("x", ".json.gz")),
        ("x.json.json", ("x.json", ".json")),
        ("x.partial", ("x.partial", "")),
    ],
)
def test_a_name_is_split_at_its_suffix(name: str, parts: tuple[str, str]) -> None:
    assert split_suffix(name) == parts


KILLED = """
import sys
from pathlib import Path
from timetracer.stores.files import FileStore
store = FileStore(Path(sys.argv[1]))
print("ready", flush=True)
number = 0
while True:
    number += 1
    store.write("x.json", [b"%d" % (number % 10)] * 200_000)
"""


def test_a_killed_process_leaves_a_whole_file(store: FileStore) -> None:
    for delay in (0.0, 0.01, 0.03, 0.07):
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(store.directory)], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(delay)
        child.kill()
        child.wait(timeout=30)
        child.stdout.close()
        if store.exists("x.json"):
            data = store.read("x.json")
            assert len(data) == 200_000
            assert len(set(data)) == 1
