"""What is Motor's alone: Futures, frozen classes, its older ways to read, tornado."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.programs_async.proof import OWN_THREADS, Proof

pytest.importorskip("motor")
pytest.importorskip("tornado")


@pytest.fixture
def proof(mongodb: str, database: str, tmp_path: Path) -> Proof:
    return Proof(mongodb, database, tmp_path)


ENABLED = {
    "before import motor": """
        enable_motor()
        import motor.motor_asyncio, motor.motor_tornado
    """,
    "after import motor": """
        import motor.motor_asyncio, motor.motor_tornado
        enable_motor()
    """,
    "twice, around it": """
        enable_motor()
        import motor.motor_asyncio, motor.motor_tornado
        enable_motor()
    """,
    "with PyMongo's plugin": """
        enable_pymongo()
        import motor.motor_asyncio, motor.motor_tornado
        enable_motor()
    """,
}
KINDS = {
    "asyncio": "motor.motor_asyncio.AsyncIOMotorClient",
    "tornado": "motor.motor_tornado.MotorClient",
}


@pytest.mark.parametrize("enabled", ENABLED)
@pytest.mark.parametrize("kind", KINDS)
def test_a_call_is_one_event(kind: str, enabled: str, proof: Proof) -> None:
    program = ENABLED[enabled] + f"""
        async def main():
            client = {KINDS[kind]}(URI)
            orders = client[DATABASE].orders
            await orders.insert_one({{"_id": 1, "sku": "A1"}})
            print(await orders.find_one({{"_id": 1}}))
            print(await orders.find({{}}).to_list(None))
            client.close()

        asyncio.run(main())
    """

    proof.holds(program, rules=OWN_THREADS)

    assert proof.methods() == ["INSERT_ONE", "FIND_ONE", "FIND"]
    assert {event["signature"]["lib"] for event in proof.events()} == {"motor"}


CLASSES = """
    from timetracer.plugins import disable_motor, disable_pymongo
    import timetracer

    def everything():
        import motor.metaprogramming, pymongo.synchronous.collection as sync
        from motor.frameworks import asyncio as leaf, tornado as other
        held = {made: dict(vars(made)) for made in motor.metaprogramming._class_cache.values()}
        held[sync] = dict(vars(sync.Collection))
        held[leaf], held[other] = dict(vars(leaf)), dict(vars(other))
        return held

    def session():
        with timetracer.use_cassette("unused.json", mode="record"):
            pass
"""


@pytest.mark.parametrize(
    "steps",
    [
        "enable_motor(); session(); disable_motor()",
        "enable_motor(); enable_motor(); disable_motor()",
        "enable_pymongo(); enable_motor(); disable_motor(); disable_pymongo()",
        "enable_motor(); enable_pymongo(); disable_motor(); disable_pymongo()",
        "enable_pymongo(); enable_motor(); disable_pymongo(); disable_motor()",
        "enable_motor(); disable_motor(); enable_motor(); session(); disable_motor()",
    ],
)
def test_disable_leaves_every_class_as_it_was(steps: str, tmp_path: Path) -> None:
    program = CLASSES + f"""
    import motor.motor_asyncio, motor.motor_tornado
    before = everything()
    {steps}
    after = everything()
    for owner, held in before.items():
        assert list(held) == list(after[owner]), owner
        for name in held:
            assert held[name] is after[owner][name], (owner, name)
    """

    Proof("mongodb://fake", "none", tmp_path).replay(program, env={"TIMETRACER_MODE": "off"})


@pytest.mark.parametrize(
    "off",
    [
        "disable_motor(); disable_pymongo()",
        "disable_pymongo(); disable_motor()",
    ],
)
def test_classes_made_while_it_was_on_hold_no_wrapper_afterwards(
    off: str, tmp_path: Path
) -> None:
    program = CLASSES + f"""
    enable_pymongo()
    enable_motor()
    import motor.motor_asyncio, motor.motor_tornado
    {off}
    import wrapt
    for owner, held in everything().items():
        for name, value in held.items():
            method = getattr(value, "__wrapped__", value)
            assert not isinstance(value, wrapt.FunctionWrapper), (owner, name)
            assert not isinstance(method, wrapt.FunctionWrapper), (owner, name)
    """

    Proof("mongodb://fake", "none", tmp_path).replay(program, env={"TIMETRACER_MODE": "off"})


BOTH = """
    import motor.motor_asyncio, pymongo
    {on}
    async def main():
        motor_client = motor.motor_asyncio.AsyncIOMotorClient(URI)
        client = pymongo.MongoClient(URI)
        await motor_client[DATABASE].a.insert_one({{"_id": 1}})
        client[DATABASE].b.insert_one({{"_id": 1}})
        print(await motor_client[DATABASE].a.find_one(), client[DATABASE].b.find_one())
        motor_client.close()
        client.close()

    asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("on", "libs"),
    [
        ("enable_motor()", {"motor"}),
        ("enable_pymongo()", {"pymongo"}),
        ("enable_motor(); enable_pymongo()", {"motor", "pymongo"}),
    ],
)
def test_each_plugin_records_its_own_clients(on: str, libs: set[str], proof: Proof) -> None:
    proof.record(BOTH.format(on=on))

    assert {event["signature"]["lib"] for event in proof.events()} == libs
    assert len(proof.events()) == 2 * len(libs)


@pytest.mark.parametrize(("passed", "left"), [("motor", "pymongo"), ("pymongo", "motor")])
def test_a_driver_that_is_passed_through_is_live_beside_one_that_is_not(
    passed: str, left: str, proof: Proof
) -> None:
    program = BOTH.format(on="enable_motor(); enable_pymongo()")
    env = {"TIMETRACER_PASSTHROUGH": passed}
    said = proof.record(program, env=env)

    assert {event["signature"]["lib"] for event in proof.events()} == {left}

    if passed == "motor":  # its call is made again, so its database must be empty again
        clean = f"""
            import pymongo
            pymongo.MongoClient({proof.uri!r})[{proof.database!r}].a.drop()
        """
    else:
        clean = f"""
            import pymongo
            pymongo.MongoClient({proof.uri!r})[{proof.database!r}].b.drop()
        """
    proof.record(clean, env={"TIMETRACER_MODE": "off"})
    assert proof.record(program, env={**env, "TIMETRACER_MODE": "replay"}) == said


def test_futures_stay_futures(proof: Proof) -> None:
    said = proof.holds(
        """
        enable_motor()
        from motor.motor_asyncio import AsyncIOMotorClient

        async def main():
            client = AsyncIOMotorClient(URI)
            orders = client[DATABASE].orders
            made = orders.insert_one({"_id": 1})
            print(asyncio.isfuture(made), asyncio.iscoroutine(made))
            print(asyncio.iscoroutinefunction(orders.insert_one))
            done = []
            made.add_done_callback(lambda future: done.append(future.result().inserted_id))
            await made
            await asyncio.sleep(0)
            print(done)
            latent = orders.aggregate([{"$match": {}}])
            print(type(latent).__name__, asyncio.isfuture(latent))
            print([document async for document in latent])
            try:
                await orders.insert_one({"_id": 1})
            except Exception as error:
                print(type(error).__name__, error.code)
            client.close()

        asyncio.run(main())
        """,
        rules=OWN_THREADS,
    )

    assert said.splitlines() == [
        "True False",
        "False",
        "[1]",
        "AsyncIOMotorLatentCommandCursor False",
        "[{'_id': 1}]",
        "DuplicateKeyError 11000",
    ]


def test_the_ways_to_read_a_cursor(proof: Proof) -> None:
    said = proof.holds(
        """
        enable_motor()
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from motor.motor_asyncio import AsyncIOMotorClient

        async def main():
            client = AsyncIOMotorClient(URI)
            c = client[DATABASE].c
            await c.insert_many([{"_id": n} for n in range(7)])
            cursor = c.find(batch_size=2).sort("_id", 1)
            while await cursor.fetch_next:
                print(cursor.next_object()["_id"], end=" ")
            print(await cursor.fetch_next, cursor.next_object(), cursor.alive)

            cursor = c.find(batch_size=2).sort("_id", 1)
            seen, finished = [], asyncio.get_running_loop().create_future()

            def each(document, error):
                if document is None:
                    finished.set_result(error)
                else:
                    seen.append(document["_id"])

            cursor.each(each)
            print(await finished, seen)

            cursor = c.find(batch_size=2).sort("_id", 1)
            print(len(await cursor.to_list(3)), cursor.alive, len(await cursor.to_list(None)))
            print(await cursor.to_list(None))

            cursor = c.find(batch_size=2).sort("_id", 1)
            async for document in cursor:
                if document["_id"] == 2:
                    break
            print([document["_id"] async for document in cursor])

            cursor = c.find(batch_size=2).sort("_id", 1)
            async with cursor:
                print((await cursor.next())["_id"])
            print(cursor.alive, cursor.delegate.retrieved)
            cursor.rewind()
            print([document["_id"] async for document in cursor.clone()])
            client.close()

        asyncio.run(main())
        """,
        rules=OWN_THREADS,
    )

    assert said.splitlines()[0] == "0 1 2 3 4 5 6 False None False"
    assert said.splitlines()[1] == "None [0, 1, 2, 3, 4, 5, 6]"


def test_a_transaction_of_motor(proof: Proof) -> None:
    proof.holds(
        """
        enable_motor()
        from motor.motor_asyncio import AsyncIOMotorClient

        async def main():
            client = AsyncIOMotorClient(URI)
            c = client[DATABASE].c
            await c.insert_one({"_id": 0})
            starting = client.start_session()
            print(asyncio.iscoroutine(starting))
            async with await starting as session:
                async with session.start_transaction():
                    await c.insert_one({"_id": 1}, session=session)
                print(session.in_transaction)

                async def work(session):
                    await c.insert_one({"_id": 2}, session=session)
                    return "done"

                print(await session.with_transaction(work), session.operation_time)
            print(await c.count_documents({}))
            client.close()

        asyncio.run(main())
        """,
        rules=OWN_THREADS,
    )


def test_a_cancelled_call_is_cancelled_again(proof: Proof) -> None:
    said = proof.holds(
        """
        enable_motor()
        from motor.motor_asyncio import AsyncIOMotorClient

        async def within(seconds, awaitable):
            try:
                return await asyncio.wait_for(awaitable, seconds)
            except asyncio.TimeoutError:
                return "too late"

        async def main():
            client = AsyncIOMotorClient(URI)
            c = client[DATABASE].c
            await c.insert_many([{"_id": n} for n in range(6)])
            slow(500, "find")
            print(await within(0.1, c.find_one({"_id": 1})))
            await asyncio.sleep(0.6)
            print(await within(5, c.find_one({"_id": 1})))
            slow(500, "getMore")
            cursor = c.find(batch_size=3).sort("_id", 1)
            print([(await cursor.next())["_id"] for _ in range(3)])
            print(await within(0.1, cursor.next()))
            await asyncio.sleep(0.6)
            print([document["_id"] async for document in cursor])
            client.close()

        asyncio.run(main())
        """,
        rules=OWN_THREADS,
    )

    assert said.splitlines() == [
        "too late",
        "{'_id': 1}",
        "[0, 1, 2]",
        "too late",
        "[3, 4, 5]",
    ]


def test_the_first_call_is_a_query(proof: Proof) -> None:
    proof.holds(
        """
        enable_motor()
        from motor.motor_asyncio import AsyncIOMotorClient

        async def main():
            client = AsyncIOMotorClient(URI)
            print(await client[DATABASE].c.find({}).to_list(None))
            client.close()

        asyncio.run(main())
        """,
        rules=OWN_THREADS,
    )

    assert proof.methods() == ["FIND"]


def test_gridfs_streams_of_motor(proof: Proof) -> None:
    said = proof.holds(
        """
        enable_motor()
        from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorGridFSBucket

        async def main():
            client = AsyncIOMotorClient(URI)
            bucket = AsyncIOMotorGridFSBucket(client[DATABASE], chunk_size_bytes=4)
            async with bucket.open_upload_stream("a.txt", metadata={"k": 1}) as writer:
                await writer.write(b"hello ")
                await writer.write(b"world")
            reader = await bucket.open_download_stream(writer._id)
            print([chunk async for chunk in reader])
            print(reader.filename, reader.length, reader.metadata, reader.upload_date)
            async for found in bucket.find({"filename": "a.txt"}):
                print(found.filename, found.length)
            client.close()

        asyncio.run(main())
        """,
        rules=OWN_THREADS,
    )

    assert said.startswith("[b'hell', b'o wo', b'rld']\n")


def test_a_tornado_handler_that_serves_gridfs_files(proof: Proof) -> None:
    said = proof.holds(
        """
        enable_motor()
        import motor.web
        from motor.motor_tornado import MotorClient, MotorGridFSBucket
        from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine
        from tornado.web import Application

        class Connection:  # a client's, with no socket
            def __init__(self):
                self.said, self.ended = [], asyncio.get_running_loop().create_future()

            def set_close_callback(self, callback):
                pass

            def write_headers(self, start_line, headers, chunk=None):
                kept = (headers[name] for name in ("Content-Length", "Content-Type"))
                self.said.append((start_line.code, *kept, chunk))
                return self.sent()

            def write(self, chunk):
                self.said.append(chunk)
                return self.sent()

            def sent(self):
                future = asyncio.get_running_loop().create_future()
                future.set_result(None)
                return future

            def finish(self):
                self.ended.set_result(None)

        async def get(app, path, method="GET"):
            connection = Connection()
            app(HTTPServerRequest(
                start_line=RequestStartLine(method, path, "HTTP/1.1"),
                headers=HTTPHeaders({"Host": "x"}),
                connection=connection,
            ))
            await connection.ended
            return connection.said

        async def main():
            client = MotorClient(URI)
            bucket = MotorGridFSBucket(client[DATABASE], chunk_size_bytes=4)
            await bucket.upload_from_stream("a.txt", b"hello world")
            reader = await bucket.open_download_stream_by_name("a.txt")

            class Handler:
                said = []
                def write(self, chunk):
                    self.said.append(chunk)
                def flush(self):
                    self.said.append("flush")

            await reader.stream_to_handler(Handler())
            print(Handler.said)
            files = (r"/files/(.*)", motor.web.GridFSHandler, {"database": client[DATABASE]})
            app = Application([files], log_function=lambda handler: None)
            print(await get(app, "/files/a.txt"))
            print(await get(app, "/files/a.txt", "HEAD"))
            print((await get(app, "/files/none.txt"))[0][0])
            client.close()

        asyncio.run(main())
        """,
        rules=OWN_THREADS,
    )

    assert said.splitlines() == [
        "[b'hell', 'flush', b'o wo', 'flush', b'rld', 'flush']",
        "[(200, '11', 'text/plain', b'hell'), b'o wo', b'rld', b'']",
        "[(200, '11', 'text/plain', b'')]",
        "404",
    ]
