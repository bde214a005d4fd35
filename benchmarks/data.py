"""The documents of the benchmarks: one ordinary order, 297 bytes of BSON."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bson import ObjectId


def order(number: int) -> dict[str, Any]:
    """Return an order, the same for the same number."""
    return {
        "_id": ObjectId(f"{number:024x}"),
        "number": number,
        "customer": f"Customer {number:06d}",
        "email": f"c{number:06d}@example.com",
        "paid": number % 3 == 0,
        "total": number * 1.25,
        "at": datetime(2026, 11, 21, 12, number % 60, number % 59, 1000 * (number % 1000)),
        "lines": [
            {"sku": f"sku-{number % 97:04d}", "count": number % 7 + 1, "price": 9.5},
            {"sku": f"sku-{number % 89:04d}", "count": number % 5 + 1, "price": 19.25},
        ],
        "address": {"street": "Harbour 12", "city": "Kiel"},
    }
