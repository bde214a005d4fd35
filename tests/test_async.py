"""What is AsyncMongoClient's and asyncio's: tasks, cancellation, loops, lazy connections."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pymongo
import pytest

from tests.programs_async.proof import Proof

CLIENT = """
    enable_pymongo()
    from pymongo import AsyncMongoClient
"""
needs_anyio = pytest.mark.skipif(not importlib.util.find_spec("anyio"), reason="needs anyio")
needs_uvloop = pytest.mark.skipif(not importlib.util.find_spec("uvloop"), reason="needs uvloop")


@pytest.fixture
def proof(mongodb: str, database: str, tmp_path: Path) -> Proof:
    return Proof(mongodb, database, tmp_path)


def test_a_thousand_tasks_at_once(proof: Proof) -> None:
    said = proof.holds(
        CLIENT
        + """
    async def main():
        async with AsyncMongoClient(URI, maxPoolSize=20) as client:
            c = client[DATABASE].c
            await c.insert_many([{"_id": n} for n in range(1000)])
            found = await asyncio.gather(*[c.find_one({"_id": n}) for n in range(1000)])
            print([document["_id"] for document in found] == list(range(1000)))

    asyncio.run(main())
    """
    )

    assert said == "True\n"
    assert proof.methods().count("FIND_ONE") == 1000


@pytest.mark.skipif(sys.version_info < (3, 11), reason="TaskGroup came with Python 3.11")
def test_a_task_group_whose_tasks_fail(proof: Proof) -> None:
    said = proof.holds(
        CLIENT
        + """
    async def main():
        async with AsyncMongoClient(URI) as client:
            c = client[DATABASE].c
            await c.insert_one({"_id": 1})
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(c.insert_one({"_id": n})) for n in (2, 3)]
            print([task.result().inserted_id for task in tasks])
            slow(1500, "count")
            slow(1500, "aggregate")
            try:
                async with asyncio.TaskGroup() as group:
                    waits = group.create_task(c.count_documents({}))
                    group.create_task(c.insert_one({"_id": 1}))
            except* Exception as errors:
                print([type(error).__name__ for error in errors.exceptions], waits.cancelled())

    asyncio.run(main())
    """
    )

    assert said.splitlines() == ["[2, 3]", "['DuplicateKeyError'] True"]


# The network layer of these releases lost a cancellation and returned the answer.
@pytest.mark.skipif(pymongo.version_tuple < (4, 11), reason="the driver swallows cancellations")
def test_a_cancelled_call_is_cancelled_again(proof: Proof) -> None:
    said = proof.holds(
        CLIENT
        + """
    async def within(seconds, awaitable):
        try:
            return await asyncio.wait_for(awaitable, seconds)
        except asyncio.TimeoutError:
            return "too late"

    async def main():
        async with AsyncMongoClient(URI) as client:
            c = client[DATABASE].c
            await c.insert_many([{"_id": n} for n in range(6)])
            slow(500, "find")
            print(await within(0.1, c.find_one({"_id": 1})))
            print(await within(5, c.find_one({"_id": 1})))
            slow(500, "insert")
            document = {"x": 1}
            print(await within(0.1, c.insert_one(document)), list(document))
            slow(500, "getMore")
            cursor = c.find(batch_size=3).sort("_id", 1)
            print([(await cursor.next())["_id"] for _ in range(3)])
            print(await within(0.1, cursor.next()), cursor.alive)
            print([document["_id"] async for document in cursor])
            slow(500, "find")
            task = asyncio.create_task(c.find_one({"_id": 2}))
            await asyncio.sleep(0)
            task.cancel()
            print(await asyncio.gather(task, return_exceptions=True))
            print(await c.find_one({"_id": 2}))

    asyncio.run(main())
    """
    )

    assert said.splitlines() == [
        "too late",
        "{'_id': 1}",
        "too late ['x', '_id']",
        "[0, 1, 2]",
        "too late False",
        "[]",
        "[CancelledError('')]" if sys.version_info >= (3, 11) else "[CancelledError()]",
        "{'_id': 2}",
    ]


@pytest.mark.skipif(pymongo.version_tuple < (4, 11), reason="the driver swallows cancellations")
def test_a_call_that_is_cancelled_no_more_goes_on_to_the_next_answer(proof: Proof) -> None:
    program = (
        CLIENT
        + """
    async def main():
        async with AsyncMongoClient(URI) as client:
            c = client[DATABASE].c
            await c.insert_one({"_id": 1})
            slow(1000, "find")
            for _ in range(2):
                try:
                    print(await asyncio.wait_for(c.find_one({"_id": 1}), TIMEOUT))
                    break
                except asyncio.TimeoutError:
                    pass

    asyncio.run(main())
    """
    )
    said = proof.record("TIMEOUT = 0.2\n" + program.replace("\n    ", "\n"))

    assert proof.methods() == ["INSERT_ONE", "FIND_ONE", "FIND_ONE"]
    assert proof.replay("TIMEOUT = 60\n" + program.replace("\n    ", "\n")) == said


@pytest.mark.skipif(sys.version_info < (3, 11), reason="timeout came with Python 3.11")
@pytest.mark.skipif(pymongo.version_tuple < (4, 11), reason="the driver swallows cancellations")
def test_timeouts_of_asyncio(proof: Proof) -> None:
    said = proof.holds(
        CLIENT
        + """
    async def main():
        async with AsyncMongoClient(URI) as client:
            c = client[DATABASE].c
            async with asyncio.timeout(60):
                await c.insert_one({"_id": 1})
            slow(500, "find")
            try:
                async with asyncio.timeout(0.1) as within:
                    await c.find_one({"_id": 1})
            except TimeoutError as error:
                print(repr(error), within.expired())
            slow(1500, "aggregate")
            try:
                async with asyncio.timeout(0.5), asyncio.TaskGroup() as group:
                    counted = group.create_task(c.count_documents({}))
                    found = group.create_task(c.find_one({"_id": 1}))
            except TimeoutError:
                print(counted.cancelled(), found.result())
            print(await c.find_one({"_id": 1}))

    asyncio.run(main())
    """
    )

    assert said.splitlines() == ["TimeoutError() True", "True {'_id': 1}", "{'_id': 1}"]


def test_what_is_not_awaited_has_no_effect(proof: Proof) -> None:
    said = proof.holds(
        CLIENT
        + """
    async def main():
        async with AsyncMongoClient(URI) as client:
            c = client[DATABASE].c
            await c.insert_one({"_id": 1, "n": 0})
            unused = c.find_one({"_id": 1})
            print(unused.__qualname__)
            unused.close()
            print(await c.find_one({"_id": 1}))

    asyncio.run(main())
    """
    )

    assert said.splitlines() == ["AsyncCollection.find_one", "{'_id': 1, 'n': 0}"]
    assert proof.methods() == ["INSERT_ONE", "FIND_ONE"]


def test_what_is_never_awaited_is_warned_of_as_by_the_driver(proof: Proof) -> None:
    program = """
    import warnings
    from pymongo import AsyncMongoClient

    async def main():
        async with AsyncMongoClient(URI) as client:
            c = client[DATABASE].c
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                c.insert_one({"_id": 1})
                c.find({}).to_list()
            print(sorted({str(warning.message) for warning in caught}))
            print(await c.count_documents({}))

    asyncio.run(main())
    """
    live = proof.record(program)
    said = proof.holds(CLIENT + program)

    assert said == live
    assert "AsyncCollection.insert_one' was never awaited" in said
    assert proof.methods() == ["COUNT_DOCUMENTS"]


def test_a_call_belongs_to_the_block_in_which_it_is_awaited(proof: Proof) -> None:
    program = (
        CLIENT
        + """
    import timetracer

    async def main():
        mode = "replay" if REPLAY else "record"
        del os.environ["TIMETRACER_MODE"]
        client = AsyncMongoClient(URI)
        made = client[DATABASE].c.insert_one({"_id": 1})
        with timetracer.use_cassette(os.environ["TIMETRACER_CASSETTE"], mode=mode):
            print((await made).inserted_id)
            await client.close()

    asyncio.run(main())
    """
    )
    proof.holds(program)

    assert proof.methods() == ["INSERT_ONE"]


@pytest.mark.parametrize(
    "first",
    [
        "print(await c.find({}, batch_size=2).to_list())",
        "print(await client.is_primary, await client.is_mongos)",
        "await client.aconnect()",
        "print([change async for change in await c.list_indexes()])",
    ],
)
def test_whatever_a_program_does_first(first: str, proof: Proof) -> None:
    proof.holds(
        CLIENT
        + f"""
    async def main():
        client = AsyncMongoClient(URI)
        c = client[DATABASE].c
        {first}
        await c.insert_one({{"_id": 1}})
        print(await c.find({{}}).to_list())
        await client.close()

    asyncio.run(main())
    """
    )

    assert proof.methods()[-2:] == ["INSERT_ONE", "FIND"]


def test_two_event_loops_one_after_the_other(proof: Proof) -> None:
    proof.holds(
        CLIENT
        + """
    async def main(number):
        async with AsyncMongoClient(URI) as client:
            c = client[DATABASE].c
            await c.insert_one({"_id": number})
            print(await c.find({}).sort("_id", 1).to_list())

    for number in range(3):
        asyncio.run(main(number))
    """
    )


def test_a_client_from_another_loop_is_refused_as_live(proof: Proof) -> None:
    proof.holds(
        CLIENT
        + """
    client = AsyncMongoClient(URI)

    async def main(number):
        try:
            print(await client[DATABASE].c.insert_one({"_id": number}) is not None)
        except RuntimeError as error:
            print("RuntimeError")

    asyncio.run(main(1))
    asyncio.run(main(2))
    """
    )


@needs_anyio
def test_anyio(proof: Proof) -> None:
    said = proof.holds(
        CLIENT
        + """
    import anyio

    async def main():
        async with AsyncMongoClient(URI) as client:
            c = client[DATABASE].c
            async with anyio.create_task_group() as group:
                for number in range(5):
                    group.start_soon(c.insert_one, {"_id": number})
            print(await c.count_documents({}))

    anyio.run(main)
    """
    )

    assert said == "5\n"


@needs_anyio
@pytest.mark.skipif(pymongo.version_tuple < (4, 11), reason="the driver swallows cancellations")
def test_timeouts_of_anyio(proof: Proof) -> None:
    said = proof.holds(
        CLIENT
        + """
    import anyio

    async def main():
        async with AsyncMongoClient(URI) as client:
            c = client[DATABASE].c
            await c.insert_one({"_id": 1})
            slow(500, "find")
            with anyio.move_on_after(0.1) as scope:
                print(await c.find_one({"_id": 1}))
            print(scope.cancelled_caught)
            slow(500, "find")
            try:
                with anyio.fail_after(0.1):
                    await c.find_one({"_id": 1})
            except TimeoutError as error:
                print(repr(error))
            slow(500, "aggregate")
            async with anyio.create_task_group() as group:
                group.start_soon(c.count_documents, {})
                await anyio.sleep(0.1)
                group.cancel_scope.cancel()
            print(await c.find_one({"_id": 1}))

    anyio.run(main)
    """
    )

    assert said.splitlines() == ["True", "TimeoutError()", "{'_id': 1}"]
    assert proof.methods() == [
        "INSERT_ONE", "FIND_ONE", "FIND_ONE", "COUNT_DOCUMENTS", "FIND_ONE"
    ]  # fmt: skip


@needs_uvloop
def test_uvloop(proof: Proof) -> None:
    said = proof.holds(
        CLIENT
        + """
    import uvloop

    async def main():
        async with AsyncMongoClient(URI) as client:
            c = client[DATABASE].c
            await c.insert_many([{"_id": n} for n in range(5)])
            print(type(asyncio.get_running_loop()).__module__)
            print(await c.find({}, batch_size=2).sort("_id", 1).to_list())

    uvloop.run(main())
    """
    )

    assert said.startswith("uvloop\n")


def test_how_a_client_is_opened_and_what_it_tells_of_its_servers(proof: Proof) -> None:
    proof.holds(
        CLIENT
        + """
    async def main():
        client = AsyncMongoClient(URI, connect=True)
        await client.aconnect()
        print(await client.is_mongos)  # waits for a server, as aconnect does not in 4.9
        print(await client.address, await client.primary, await client.is_primary)
        print(await client.secondaries, client.nodes, await client.is_mongos)
        print(client.topology_description.topology_type_name)
        print(await client.server_info() is not None)
        async with client.start_session() as session:
            async with await session.start_transaction():
                await client[DATABASE].c.insert_one({"_id": 1}, session=session)
        await client.close()
        try:
            await client[DATABASE].c.find_one()
        except Exception as error:
            print(type(error).__name__)

    asyncio.run(main())
    """
    )


def test_srv_and_other_hosts_are_never_looked_up_in_replay(proof: Proof) -> None:
    program = (
        CLIENT
        + """
    async def main(uri):
        async with AsyncMongoClient(uri, connect=False) as client:
            print((await client[DATABASE].c.insert_one({"_id": 1})).inserted_id)

    asyncio.run(main(os.environ.get("OTHER_URI", URI)))
    """
    )
    said = proof.record(program)

    for uri in ("mongodb+srv://cluster.example.net", "mongodb://a.example.net,b.example.net"):
        assert proof.replay(program, env={"OTHER_URI": uri}) == said


def test_a_server_that_is_not_there_fails_at_once_in_replay(proof: Proof) -> None:
    program = (
        CLIENT
        + """
    async def main():
        started = time.perf_counter()
        client = AsyncMongoClient("mongodb://127.0.0.1:1", serverSelectionTimeoutMS=400)
        try:
            await client.shop.orders.find_one({})
        except Exception as error:
            print(type(error).__name__)
        await client.close()
        if REPLAY:
            assert time.perf_counter() - started < 0.35

    asyncio.run(main())
    """
    )

    assert proof.holds(program) == "ServerSelectionTimeoutError\n"


def test_signatures_and_kinds_are_the_drivers_own(tmp_path: Path) -> None:
    Proof("mongodb://fake", "none", tmp_path).replay(
        """
        import inspect
        from pymongo import AsyncMongoClient
        from pymongo.asynchronous.collection import AsyncCollection

        def told():
            names = [name for name in dir(AsyncCollection) if not name.startswith("__")]
            return [
                (name, str(inspect.signature(getattr(AsyncCollection, name))),
                 inspect.iscoroutinefunction(getattr(AsyncCollection, name)))
                for name in names if callable(getattr(AsyncCollection, name))
            ]

        before = told()
        enable_pymongo()
        assert told() == before
        """,
        env={"TIMETRACER_MODE": "off"},
    )
