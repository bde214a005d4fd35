# with_pymongo.py
import asyncio

from pymongo import AsyncMongoClient

from timetracer.plugins import enable_pymongo

enable_pymongo()


async def main():
    client = AsyncMongoClient("mongodb://localhost:27017")
    orders = client.moving.orders
    await orders.drop()
    await orders.insert_many([{"_id": n, "sku": f"S{n % 2}", "quantity": n} for n in range(5)])
    print(await orders.find_one({"sku": "S1"}))
    async for order in orders.find({"quantity": {"$gt": 1}}).sort("_id", 1):
        print(order)
    totals = await orders.aggregate(
        [{"$group": {"_id": "$sku", "total": {"$sum": "$quantity"}}}, {"$sort": {"_id": 1}}]
    )
    print(await totals.to_list(None))
    await client.close()


asyncio.run(main())
