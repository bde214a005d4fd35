"""GridFS and GridFSBucket: files put, streamed, found, renamed and deleted."""

import io

from bson import ObjectId
from gridfs import GridFS, GridFSBucket
from gridfs.errors import NoFile

from tests.support.programs import Steps, run


def steps(s: Steps) -> None:
    plain(s)
    found(s)
    bucket(s)
    fixed_id = ObjectId("650000000000000000000001")
    custom(s, fixed_id)
    errors(s)
    in_session(s)


def plain(s: Steps) -> None:
    files = GridFS(s.database)
    made = s.call(files.put, b"hello", filename="hello.txt", content_type="text/plain")
    s.show("file", s.call(files.get, made))
    s.call(files.get(made).read)
    s.call(files.put, b"second", filename="hello.txt", author="Ada", tags=["x"])
    s.call(files.put, "text", encoding="utf-8", filename="text.txt")
    s.call(files.put, io.BytesIO(b"0123456789" * 10), filename="chunks", chunk_size=16)
    with files.new_file(filename="written", chunk_size=4) as written:
        s.call(written.write, b"abc")
        s.call(written.write, b"defgh")
        s.call(written.writelines, [b"i", b"jk"])
    s.show("written", written)
    s.call(files.put, b"", filename="empty")
    s.call(files.get_last_version("empty").read)


def found(s: Steps) -> None:
    files = GridFS(s.database)
    chunks = s.call(files.get_last_version, "chunks")
    s.call(chunks.read, 5)
    s.call(chunks.tell)
    s.call(chunks.seek, 40)
    s.call(chunks.read, 20)
    s.call(chunks.readline, 7)
    s.call(chunks.readchunk)
    s.call(lambda: len(chunks.read()))
    s.call(lambda: b"".join(files.get_last_version("chunks")))
    s.call(files.get_version, "hello.txt", 0)
    s.call(lambda: files.get_version("hello.txt", 0).read())
    s.call(lambda: files.get_last_version("hello.txt").read())
    s.call(lambda: files.get_last_version(author="Ada").tags)
    s.call(files.list)
    s.call(files.exists, filename="hello.txt")
    s.call(files.exists, {"filename": "none"})
    s.call(files.exists, ObjectId("650000000000000000000009"))
    s.call(
        lambda: [(f.filename, f.length, f.read()) for f in files.find({"filename": "hello.txt"})]
    )
    cursor = s.call(files.find, {}, batch_size=2)
    s.call(lambda: sorted(str(f.filename) for f in cursor))
    s.call(lambda: [f.filename for f in files.find().sort("filename", -1).limit(2)])
    s.call(files.find_one, {"filename": "written"})
    s.call(files.find_one, {"filename": "none"})
    s.call(lambda: files.find_one({"filename": "written"}).read(2))


def bucket(s: Steps) -> None:
    files = GridFSBucket(s.database, bucket_name="media", chunk_size_bytes=8)
    made = s.call(files.upload_from_stream, "song", b"la la la la la", metadata={"k": [1, 2]})
    s.call(files.upload_from_stream, "song", io.BytesIO(b"second take"), chunk_size_bytes=4)
    with files.open_upload_stream("stream", metadata={"by": "stream"}) as stream:
        s.call(stream.write, b"one ")
        s.call(stream.write, b"two")
    s.show("stream", stream)
    s.call(lambda: files.open_download_stream(made).read())
    s.show("opened", s.call(files.open_download_stream, made))
    target = io.BytesIO()
    s.call(files.download_to_stream, made, target)
    s.show("downloaded", target.getvalue())
    target = io.BytesIO()
    s.call(files.download_to_stream_by_name, "song", target, 0)
    s.show("downloaded", target.getvalue())
    s.call(lambda: files.open_download_stream_by_name("song").read())
    s.call(lambda: files.open_download_stream_by_name("song", revision=-2).read())
    s.call(lambda: [(f.filename, f.metadata) for f in files.find({}).sort("filename", 1)])
    s.call(files.rename, made, "renamed")
    s.call(lambda: files.open_download_stream_by_name("renamed").read())
    s.call(files.delete, made)
    s.call(files.open_download_stream, made)
    aborted = files.open_upload_stream("aborted")
    s.call(aborted.write, b"0123456789" * 3)
    s.call(aborted.abort)
    s.call(lambda: list(files.find({"filename": "aborted"})))


def custom(s: Steps, fixed: ObjectId) -> None:
    plain_files = GridFS(s.database, "own")
    s.call(plain_files.put, b"named", _id="own id", filename="named")
    s.call(lambda: plain_files.get("own id").read())
    s.call(plain_files.put, b"again", _id="own id", filename="named")
    s.call(plain_files.put, b"fixed", _id=fixed)
    s.call(lambda: plain_files.get(fixed).read())
    files = GridFSBucket(s.database, bucket_name="own")
    s.call(files.upload_from_stream_with_id, 77, "seventy-seven", b"77")
    with files.open_upload_stream_with_id(78, "seventy-eight") as stream:
        stream.write(b"78")
    s.call(lambda: files.open_download_stream(77).read() + files.open_download_stream(78).read())
    s.call(plain_files.delete, "own id")
    s.call(plain_files.exists, "own id")
    s.call(plain_files.delete, "never there")


def errors(s: Steps) -> None:
    files = GridFS(s.database)
    s.call(files.get, "never there")
    s.call(files.get_last_version, "never there")
    s.call(files.get_version, "hello.txt", 99)
    s.call(files.put, 5)
    s.call(files.put, "text without an encoding")
    media = GridFSBucket(s.database, bucket_name="media")
    s.call(media.delete, "never there")
    s.call(media.rename, "never there", "x")
    s.call(media.open_download_stream_by_name, "never there")
    try:
        files.get("never there")
    except NoFile as error:
        s.show("caught", error)
    s.database["fs.chunks"].delete_many({})
    s.call(lambda: files.get_last_version("hello.txt").read())
    s.call(GridFS, "no database")


def in_session(s: Steps) -> None:
    files = GridFS(s.database, "sessions")
    with s.client.start_session() as session:
        made = s.call(files.put, b"in a session", session=session)
        s.call(lambda: files.get(made, session=session).read())
        s.call(files.delete, made, session=session)
        s.call(files.exists, made, session=session)


if __name__ == "__main__":
    run(steps)
