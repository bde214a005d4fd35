"""Errors that the driver, bson or the program's own code raises before or after the server."""

from collections import deque

from bson import ObjectId
from bson.codec_options import CodecOptions, TypeEncoder, TypeRegistry
from pymongo import InsertOne, UpdateOne, WriteConcern

from tests.support.programs import Steps, run


class Money:
    """A type of the program's own."""

    def __init__(self, amount: int) -> None:
        self.amount = amount

    def __repr__(self) -> str:
        return f"Money({self.amount})"


class OwnError(Exception):
    """What the program's own encoder raises."""

    def __init__(self, why: str, amount: int) -> None:
        super().__init__(f"{why}: {amount}")
        self.amount = amount


class MoneyEncoder(TypeEncoder):
    """Encodes Money, but for some."""

    python_type = Money

    def transform_python(self, value: Money) -> int:
        if value.amount < 0:
            raise OwnError("no debts", value.amount)
        return value.amount


class OnlyIterable:
    """Has an iterator and nothing more."""

    def __init__(self, values: list[object]) -> None:
        self._values = values

    def __iter__(self):
        return iter(self._values)


class Opaque:
    """A type that BSON cannot hold."""

    def __repr__(self) -> str:
        return "Opaque()"


def steps(s: Steps) -> None:
    s.database["items"].insert_one({"_id": 1})
    unencodable(s)
    wrong_arguments(s)
    own_encoder(s)
    cyclic(s)
    after_close(s)


def unencodable(s: Steps) -> None:
    items = s.database["items"]
    for value in (
        Opaque(),
        2**64,
        "\ud800",
        {1: "an int as key"},
        {"a\0b": 1},
        {1, 2},
        complex(1, 2),
        object,
        b"fine",
        [Opaque()],
    ):
        s.call(items.insert_one, {"_id": 2, "value": value})
        s.call(items.delete_one, {"_id": 2})
        s.call(items.find_one, {"value": value})
        s.call(lambda value=value: list(items.find({"value": value})))
        s.call(items.update_one, {"_id": 1}, {"$set": {"value": value}})
    made = {"value": Opaque()}
    s.call(items.insert_one, made)
    s.call(items.insert_many, [{"n": 1}, {"value": Opaque()}, {"n": 2}])
    s.call(items.bulk_write, [InsertOne({"n": 1}), InsertOne({"value": 2**64})])
    s.call(items.aggregate, [{"$match": {"value": Opaque()}}])
    s.call(items.count_documents, {"value": Opaque()})
    s.call(items.distinct, "n", {"value": Opaque()})
    s.call(items.find_one_and_update, {"_id": 1}, {"$set": {"value": Opaque()}})
    s.call(items.insert_one, {"_id": ["an", "array"]})
    s.call(s.database.command, {"ping": Opaque()})
    s.call(items.count_documents, {})


def wrong_arguments(s: Steps) -> None:
    items = s.database["items"]
    s.call(items.insert_one)
    s.call(items.insert_one, [1])
    s.call(items.insert_one, {"_id": 1}, nonsense=True)
    s.call(items.insert_one, {"_id": 1}, False, None, None, None, None)
    s.call(items.insert_one, {"_id": 1}, document={"_id": 2})
    s.call(items.insert_many, [])
    s.call(items.insert_many, {"_id": 1})
    s.call(items.insert_many, [5])
    s.call(items.insert_many, 5)
    s.call(items.insert_many, deque([{"_id": "in a deque"}]))
    s.call(items.insert_many, deque())
    s.call(items.insert_many, {"a": {"_id": "in a view"}}.values())
    s.call(items.insert_many, OnlyIterable([{"_id": "in an iterable"}]))
    s.call(items.insert_many, iter([]))
    s.call(items.update_one, {}, {})
    s.call(items.update_one, {}, {"n": 1})
    s.call(items.update_one, {"_id": 1}, "no document")
    s.call(items.update_one, "no filter", {"$set": {"n": 1}})
    s.call(items.replace_one, {}, {"$set": {"n": 1}})
    s.call(items.delete_one, 5)
    s.call(items.delete_many)
    s.call(items.find_one_and_replace, {}, {"$set": {}})
    s.call(items.bulk_write, 5)
    s.call(items.bulk_write, [UpdateOne({}, {"n": 1})])
    s.call(items.create_index, 5)
    s.call(items.create_index, [("n", 1)], nonsense={"a": Opaque()})
    s.call(items.aggregate, {"$match": {}})
    s.call(items.find_one, {}, sort="n desc")
    s.call(items.find_one, {}, sort=[("n", 1, 1)])
    s.call(items.find_one, {}, "no projection")
    s.call(items.distinct)
    s.call(items.rename, 5)
    s.call(items.drop_index, 5)
    s.call(items.no_such_method, 5)
    s.call(items.update_one, {}, {"$set": {"n": 1}}, collation="en")
    unacknowledged = s.database.get_collection("items", write_concern=WriteConcern(w=0))
    s.call(unacknowledged.update_one, {}, {"$set": {"n": 1}}, collation={"locale": "en"})
    s.call(s.database.get_collection, "")
    s.call(s.database.create_collection, "a..b")
    s.call(s.client.drop_database, None)
    other = type(s.client)(s.uri, connect=False)
    with other.start_session() as session:
        s.call(items.find_one, {"_id": 1}, session=session)
        s.call(items.insert_one, {"n": 1}, session=session)
    s.call(items.count_documents, {"_id": 1}, session="no session")


def own_encoder(s: Steps) -> None:
    options = CodecOptions(type_registry=TypeRegistry([MoneyEncoder()]))
    purse = s.database.get_collection("purse", codec_options=options)
    s.call(purse.insert_one, {"_id": 1, "money": Money(5)})
    s.call(purse.find_one, {"money": Money(5)})
    s.call(purse.insert_one, {"_id": 2, "money": Money(-5)})
    s.call(purse.insert_one, {"money": Money(-6)})
    s.call(purse.find_one, {"money": Money(-7)})
    try:
        purse.insert_one({"money": Money(-11)})
    except OwnError as error:
        s.show("its own attribute", error.amount)
    s.call(lambda: list(purse.find({"money": Money(-8)})))
    s.call(purse.update_one, {"_id": 1}, {"$set": {"money": Money(-9)}})
    s.call(purse.bulk_write, [InsertOne({"money": Money(-10)})])
    s.call(s.database["purse"].find_one, {"money": Money(5)})


def cyclic(s: Steps) -> None:
    document: dict[str, object] = {"_id": 9}
    document["self"] = document
    try:
        s.database["items"].insert_one(document)
    except Exception as error:
        s.show("cyclic", type(error))
    deep: dict[str, object] = {}
    for _ in range(150):
        deep = {"d": deep}
    s.call(lambda: type(s.database["items"].insert_one({"_id": 10, "deep": deep})))
    s.call(lambda: len(str(s.database["items"].find_one({"_id": 10}))))


def after_close(s: Steps) -> None:
    client = s.options().client
    s.call(client.admin.command, "ping")
    cursor = client[s.database.name]["items"].find()
    s.call(client.close)
    s.call(client[s.database.name]["items"].find_one, {"_id": ObjectId("650000000000000000000001")})
    s.call(list, cursor)
    s.call(client.close)
    s.call(client.start_session)


if __name__ == "__main__":
    run(steps)
