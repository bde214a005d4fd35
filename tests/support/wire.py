"""One command to a MongoDB server, with no driver in between: what no recorder can see."""

from __future__ import annotations

import socket
import struct
from typing import Any

import bson

SECONDS = 10
_OP_MSG = 2013


def command(uri: str, document: dict[str, Any], database: str = "admin") -> dict[str, Any]:
    """Send a command and return the reply.

    Args:
        uri: the server, as mongodb://host:port.
        document: the command.
        database: the database it is for.

    Raises:
        RuntimeError: the server answered with an error.
    """
    with socket.create_connection(_address(uri), SECONDS) as connection:
        body = b"\0\0\0\0\0" + bson.encode({**document, "$db": database})
        connection.sendall(struct.pack("<iiii", 16 + len(body), 1, 0, _OP_MSG) + body)
        (length,) = struct.unpack("<i", _receive(connection, 4))
        reply: dict[str, Any] = bson.decode(_receive(connection, length - 4)[17:])
    if not reply.get("ok"):
        raise RuntimeError(f"{next(iter(document))}: {reply}")
    return reply


def _address(uri: str) -> tuple[str, int]:
    host = uri.split("://", 1)[1].split("/", 1)[0].split(",")[0].rpartition("@")[2]
    name, _, port = host.partition(":")
    return name, int(port or 27017)


def _receive(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        part = connection.recv(size - len(received))
        if not part:
            raise RuntimeError("the server closed the connection")
        received += part
    return received
