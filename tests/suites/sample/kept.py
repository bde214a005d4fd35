"""What suites do: wider fixtures, unittest, a thread, asyncio, ids, tokens and times made anew."""

import asyncio
import hashlib
import os
import secrets
import threading
import time
import unittest
import uuid
from datetime import datetime, timedelta, timezone

import pytest
from pymongo import AsyncMongoClient, MongoClient
from pymongo.errors import DuplicateKeyError

URI = f"mongodb://localhost:{os.environ['SAMPLE_PORT']}"
lists = MongoClient(URI).sample.lists
jobs = MongoClient(URI).sample.jobs


@pytest.fixture(scope="module")
def owner():
    name = uuid.uuid4().hex
    lists.insert_one({"_id": name, "kind": "owner"})
    yield name
    lists.delete_one({"_id": name})


@pytest.fixture(autouse=True)
def empty():
    jobs.delete_many({})


def test_a_made_id_is_found_again(owner):
    assert lists.find_one({"_id": owner})["kind"] == "owner"


@pytest.mark.parametrize("size", [0, 1, 30])
def test_all_are_read(owner, size):
    if size:
        jobs.insert_many([{"owner": owner, "number": number} for number in range(size)])
    found = jobs.find({"owner": owner}, batch_size=7).sort("number")
    assert [one["number"] for one in found] == list(range(size))


def test_a_key_that_is_there_twice(owner):
    with pytest.raises(DuplicateKeyError, match=owner):
        lists.insert_one({"_id": owner})


def test_how_long_it_took():
    began = datetime.now(timezone.utc)
    time.sleep(0.01)
    ended = datetime.now(timezone.utc)
    took = (ended - began).total_seconds()
    done = jobs.insert_one({"began": began, "ended": ended, "took": took}).inserted_id
    assert jobs.find_one({"_id": done})["took"] >= 0.01
    assert jobs.count_documents({"ended": {"$lt": began - timedelta(minutes=1)}}) == 0


def test_a_token_for_each(owner):
    tokens = {secrets.token_urlsafe(32) for _ in range(3)}
    for token in tokens:
        jobs.insert_one({"_id": hashlib.sha256(token.encode()).hexdigest(), "token": token})
    assert {one["token"] for one in jobs.find({"token": {"$in": sorted(tokens)}})} == tokens


def test_a_thread():
    thread = threading.Thread(target=jobs.insert_one, args=({"by": "a thread"},))
    thread.start()
    thread.join()
    assert jobs.find_one({}, {"_id": 0}) == {"by": "a thread"}


class TestQueue(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.queue = MongoClient(URI).sample.queue
        cls.queue.delete_many({})

    def setUp(self):
        self.addCleanup(self.queue.delete_many, {})

    def test_first_in_first_out(self):
        for number in range(3):
            self.queue.insert_one({"at": datetime.now(), "number": number})
        taken = [self.queue.find_one_and_delete({}, sort=[("at", 1)])["number"] for _ in range(3)]
        self.assertEqual(taken, [0, 1, 2])

    def test_empty(self):
        self.assertIsNone(self.queue.find_one_and_delete({}))


class TestAsync(unittest.IsolatedAsyncioTestCase):
    async def test_at_once(self):
        async with AsyncMongoClient(URI) as client:
            things = client.sample.jobs
            await asyncio.gather(*(things.insert_one({"number": one}) for one in range(5)))
            assert sorted([one["number"] async for one in things.find()]) == [0, 1, 2, 3, 4]
