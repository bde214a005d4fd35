"""Transactions and sessions: commits, aborts, retries, causal times."""

from pymongo import ReadPreference, WriteConcern
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern

from tests.support.programs import Steps, run


class OwnError(Exception):
    """Raised by the program itself within a transaction."""


def steps(s: Steps) -> None:
    s.database.create_collection("accounts")
    s.database["accounts"].insert_many([{"_id": n, "balance": 100} for n in range(3)])
    by_hand(s)
    by_callback(s)
    empty(s)
    failures(s)
    causal(s)


def transfer(s: Steps, session, amount: int) -> None:
    accounts = s.database["accounts"]
    s.call(accounts.update_one, {"_id": 0}, {"$inc": {"balance": -amount}}, session=session)
    s.call(accounts.update_one, {"_id": 1}, {"$inc": {"balance": amount}}, session=session)
    s.call(accounts.find_one, {"_id": 1}, session=session)


def balances(s: Steps) -> None:
    s.call(lambda: [found["balance"] for found in s.database["accounts"].find().sort("_id", 1)])


def by_hand(s: Steps) -> None:
    with s.client.start_session() as session:
        s.call(session.start_transaction)
        transfer(s, session, 10)
        s.show("within", session)
        s.call(session.commit_transaction)
        s.show("after", session)
        s.call(session.commit_transaction)
        s.call(session.abort_transaction)
        session.start_transaction(
            ReadConcern("snapshot"), WriteConcern("majority"), ReadPreference.PRIMARY, 5000
        )
        transfer(s, session, 20)
        s.call(session.abort_transaction)
        s.call(session.abort_transaction)
        s.call(session.commit_transaction)
    balances(s)
    with s.client.start_session() as session, session.start_transaction():
        transfer(s, session, 1)
    balances(s)
    try:
        with s.client.start_session() as session, session.start_transaction():
            transfer(s, session, 50)
            raise OwnError("no")
    except OwnError as error:
        s.show("left by", error)
    balances(s)
    with s.client.start_session() as session, session.start_transaction():
        cursor = s.database["accounts"].find({}, session=session, batch_size=2).sort("_id", 1)
        s.call(list, cursor)
        s.call(s.database["accounts"].count_documents, {}, session=session)
        s.call(list, s.database["accounts"].aggregate([{"$count": "n"}], session=session))


def by_callback(s: Steps) -> None:
    with s.client.start_session() as session:
        s.call(session.with_transaction, lambda given: transfer(s, given, 5))
        s.call(
            session.with_transaction,
            lambda given: s.database["accounts"].find_one({"_id": 2}, session=given)["balance"],
            write_concern=WriteConcern("majority"),
        )

        def broken(given):
            transfer(s, given, 6)
            raise OwnError("in the callback")

        s.call(session.with_transaction, broken)
    balances(s)


def empty(s: Steps) -> None:
    with s.client.start_session() as session:
        s.call(session.commit_transaction)
        session.start_transaction()
        s.call(session.commit_transaction)
        session.start_transaction()
        s.call(session.abort_transaction)
        session.start_transaction()
        s.call(session.start_transaction)
    s.call(session.start_transaction)
    s.call(session.end_session)


def failures(s: Steps) -> None:
    accounts = s.database["accounts"]
    with s.client.start_session() as session:
        session.start_transaction()
        s.call(accounts.insert_one, {"_id": 0}, session=session)
        s.call(accounts.find_one, {"_id": 1}, session=session)
        s.call(session.commit_transaction)
    with s.client.start_session() as first, s.client.start_session() as second:
        first.start_transaction()
        second.start_transaction()
        s.call(accounts.update_one, {"_id": 2}, {"$inc": {"balance": 1}}, session=first)
        s.call(accounts.update_one, {"_id": 2}, {"$inc": {"balance": 1}}, session=second)
        s.call(first.commit_transaction)
        s.call(second.commit_transaction)
    with s.client.start_session() as session:
        session.start_transaction()
        s.call(accounts.update_one, {"_id": 2}, {"$inc": {"balance": 1}}, session=session)
        with s.failing("commitTransaction", errorCode=91, errorLabels=["RetryableWriteError"]):
            s.call(session.commit_transaction)
    with s.client.start_session() as session:
        session.start_transaction()
        s.call(accounts.update_one, {"_id": 2}, {"$inc": {"balance": 1}}, session=session)
        with s.failing("commitTransaction", times=2, closeConnection=True):
            s.call(session.commit_transaction)
        s.call(session.commit_transaction)
    with s.client.start_session() as session:
        session.start_transaction()
        s.call(accounts.update_one, {"_id": 2}, {"$inc": {"balance": 1}}, session=session)
        with s.failing("commitTransaction", errorCode=251):
            s.call(session.commit_transaction)
        s.call(session.abort_transaction)
    with s.client.start_session() as session:
        session.start_transaction()
        s.call(accounts.update_one, {"_id": 2}, {"$inc": {"balance": 1}}, session=session)
        with s.failing("abortTransaction", errorCode=91):
            s.call(session.abort_transaction)
    attempts = []

    def retried(given):
        attempts.append(1)
        try:
            accounts.update_one({"_id": 2}, {"$inc": {"balance": 1}}, session=given)
        except OperationFailure as error:
            s.show("attempt failed", error)
            raise
        return len(attempts)

    with s.client.start_session() as session:
        transient = {"errorCode": 112, "errorLabels": ["TransientTransactionError"]}
        with s.failing("update", times=2, **transient):
            s.call(session.with_transaction, retried)
        unknown = {"errorCode": 91, "errorLabels": ["UnknownTransactionCommitResult"]}
        with s.failing("commitTransaction", times=2, **unknown):
            s.call(session.with_transaction, retried)
    balances(s)


def causal(s: Steps) -> None:
    accounts = s.database["accounts"]
    with s.client.start_session(causal_consistency=True) as session:
        s.show("times", (session.cluster_time, session.operation_time))
        s.call(accounts.update_one, {"_id": 2}, {"$inc": {"balance": 1}}, session=session)
        s.show("times", (session.cluster_time, session.operation_time))
        with s.client.start_session(causal_consistency=True) as follower:
            follower.advance_cluster_time(session.cluster_time)
            follower.advance_operation_time(session.operation_time)
            s.call(accounts.find_one, {"_id": 2}, session=follower)
            s.show("times", (follower.cluster_time, follower.operation_time))
        s.call(list, accounts.find({"_id": 1}, session=session))
        s.show("times", (session.cluster_time, session.operation_time))
        s.call(accounts.insert_one, {"_id": 2}, session=session)
        s.show("times after an error", (session.cluster_time, session.operation_time))
    with s.client.start_session(snapshot=True) as session:
        s.call(accounts.find_one, {"_id": 2}, session=session)
        s.call(accounts.insert_one, {"_id": 3}, session=session)
    s.call(accounts.find_one, {"_id": 2}, session=session)
    try:
        s.call(s.client.start_session, snapshot=True, causal_consistency=True)
    except PyMongoError as error:
        s.show("refused", error)


if __name__ == "__main__":
    run(steps)
