"""Change streams on a collection, a database and a client: polls, tokens, resuming after errors."""

from pymongo import InsertOne

from tests.support.programs import Steps, run


def steps(s: Steps) -> None:
    s.database.create_collection("watched")
    collection(s)
    options(s)
    resuming(s)
    failing(s)
    wider(s)
    refused(s)


def change(event):
    """What is the same in every run."""
    kept = ("operationType", "documentKey", "ns", "fullDocument", "updateDescription")
    return event and {key: event[key] for key in kept if key in event}


def collection(s: Steps) -> None:
    watched = s.database["watched"]
    with watched.watch(max_await_time_ms=100) as stream:
        s.show("open", stream)
        s.call(stream.try_next)
        s.call(stream.try_next)
        s.call(watched.insert_one, {"_id": 1, "n": 1})
        s.call(lambda: change(stream.next()))
        s.call(stream.try_next)
        s.call(watched.update_one, {"_id": 1}, {"$set": {"n": 2}})
        s.call(watched.bulk_write, [InsertOne({"_id": 2}), InsertOne({"_id": 3})])
        s.call(lambda: [change(stream.try_next()) for _ in range(5)])
        s.call(stream.try_next)
        s.show("token", stream.resume_token)
        s.call(watched.delete_one, {"_id": 3})
        s.show("whole", stream.try_next())
        s.show("token", stream.resume_token)
    s.show("closed", stream)
    s.call(stream.try_next)
    s.call(stream.next)


def options(s: Steps) -> None:
    watched = s.database["watched"]
    pipeline = [{"$match": {"operationType": "insert"}}, {"$project": {"fullDocument": 1}}]
    with watched.watch(
        pipeline,
        full_document="updateLookup",
        batch_size=2,
        max_await_time_ms=100,
        comment="options",
    ) as stream:
        watched.insert_many([{"_id": n} for n in range(10, 15)])
        s.call(lambda: [stream.next()["fullDocument"]["_id"] for _ in range(5)])
        s.call(stream.try_next)
    with (
        s.client.start_session() as session,
        watched.watch(session=session, max_await_time_ms=50) as stream,
    ):
        s.call(stream.try_next)
        s.show("session", session)


def resuming(s: Steps) -> None:
    watched = s.database["watched"]
    with watched.watch(max_await_time_ms=100) as stream:
        watched.insert_many([{"_id": n} for n in range(20, 24)])
        s.call(lambda: [change(stream.next())["documentKey"]["_id"] for _ in range(2)])
        token = stream.resume_token
    with watched.watch(resume_after=token, max_await_time_ms=100) as stream:
        s.show("token", stream.resume_token == token)
        s.call(lambda: [change(stream.next())["documentKey"]["_id"] for _ in range(2)])
        s.call(stream.try_next)
    with watched.watch(start_after=token, max_await_time_ms=100) as stream:
        s.call(lambda: change(stream.next()))
    with s.client.start_session() as session:
        watched.find_one({}, session=session)
        started = session.operation_time
    watched.insert_one({"_id": 30})
    with watched.watch(start_at_operation_time=started, max_await_time_ms=100) as stream:
        s.call(lambda: change(stream.next())["documentKey"])


def failing(s: Steps) -> None:
    watched = s.database["watched"]
    with watched.watch(max_await_time_ms=100) as stream:
        watched.insert_one({"_id": 40})
        s.call(lambda: change(stream.next()))
        labels = {"errorLabels": ["ResumableChangeStreamError"]}
        with s.failing("getMore", errorCode=43, **labels):
            watched.insert_one({"_id": 41})
            s.call(lambda: change(stream.next()))
        with s.failing("getMore", closeConnection=True):
            watched.insert_one({"_id": 42})
            s.call(lambda: change(stream.next()))
        with s.failing("getMore", errorCode=1):
            s.call(stream.try_next)
        s.show("after the error", stream)
        s.call(stream.try_next)
    with s.failing("aggregate", errorCode=1):
        s.call(watched.watch)
    with s.failing("aggregate", errorCode=91), watched.watch(max_await_time_ms=50) as stream:
        s.call(stream.try_next)


def wider(s: Steps) -> None:
    with s.database.watch(max_await_time_ms=100) as stream:
        s.call(s.database["another"].insert_one, {"_id": 1})
        s.call(lambda: change(stream.next()))
        s.call(stream.try_next)
    pipeline = [{"$match": {"ns.db": s.database.name}}]
    with s.client.watch(pipeline, max_await_time_ms=100) as stream:
        s.call(s.database["another"].insert_one, {"_id": 2})
        s.call(lambda: change(stream.next()))
        s.call(stream.try_next)
    with s.database["another"].watch(max_await_time_ms=100) as stream:
        s.call(s.database["another"].drop)
        s.call(lambda: change(stream.next()))
        s.call(lambda: stream.next()["operationType"])
        s.show("invalidated", stream)
        s.call(stream.try_next)


def refused(s: Steps) -> None:
    watched = s.database["watched"]
    s.call(watched.watch, [{"$no": 1}])
    s.call(watched.watch, "no list")
    s.call(watched.watch, full_document="no such value")
    s.call(watched.watch, full_document_before_change="required", show_expanded_events=True)
    s.call(watched.watch, resume_after={"_data": "00"})
    s.call(watched.watch, batch_size=-1)


if __name__ == "__main__":
    run(steps)
