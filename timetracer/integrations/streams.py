"""Bodies that stream: a request's file or messages, and a response step by step.

    stream = CopiedFile(stream, trace.request_body, length)
    receive = copied_messages(receive, trace.request_body)
    response = Steps(trace, chunks)

Nothing is held back: each read and each step passes on what is there.
"""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from typing import Any

from timetracer.integrations.bodies import BodyCopy
from timetracer.integrations.request import RequestTrace

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

END: Any = object()
"""What a step gives when there is no further chunk."""

UNSEEN = frozenset(("seek", "read1", "detach", "fileno"))
"""Attributes of a file by which bytes may pass unseen, or twice."""


# ------------------------------------------------------------------------------- a request's file


def read_ahead(stream: Any, size: int) -> io.BytesIO:
    """Return a file with the next bytes of a stream, fewer where it ends before.

    Args:
        stream: what the server gave.
        size: how many bytes.
    """
    data = bytearray()
    while len(data) < size and (part := stream.read(size - len(data))):
        data += part
    return io.BytesIO(data)


def copy_file(stream: Any, copy: BodyCopy) -> bool:
    """Copy the rest of a file, and go back; tell whether the stream is a file that lets one."""
    try:
        place = stream.tell()
        stream.seek(place)
    except (AttributeError, OSError):
        return False
    while part := stream.read(65536):
        copy.add(part)
    stream.seek(place)
    copy.ended = True
    return True


class CopiedFile:
    """The request's body as the server gives it, with a copy of what the application reads.

    Args:
        stream: what the server gave.
        copy: grows by what is read.
        length: bytes of the whole body, None where they are not known before.
    """

    def __init__(self, stream: Any, copy: BodyCopy, length: int | None) -> None:
        self._stream = stream
        self._copy = copy
        self._length = length

    def read(self, *size: int) -> bytes:
        whole = not size or size[0] is None or size[0] < 0
        return self._seen(self._stream.read(*size), at_end=whole, sized=size)

    def readline(self, *size: int) -> bytes:
        return self._seen(self._stream.readline(*size), sized=size)

    def readlines(self, *hint: int) -> list[bytes]:
        lines: list[bytes] = self._stream.readlines(*hint)
        self._seen(b"".join(lines), at_end=not hint)
        return lines

    def __iter__(self) -> Iterator[bytes]:
        for line in self._stream:
            yield self._seen(line)
        self._seen(b"")

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._stream, name)
        if name in ("readinto", "readinto1"):
            return lambda buffer: self._read_into(attribute, buffer)
        if name in UNSEEN:
            return lambda *args: self._unseen(attribute(*args))
        return attribute

    def _unseen(self, result: Any) -> Any:
        self._copy.spoilt = True  # only now: a stream that cannot do it has raised
        return result

    def _read_into(self, read: Any, buffer: Any) -> Any:
        size = read(buffer)
        if size is not None:
            self._seen(bytes(memoryview(buffer)[:size]), sized=(len(buffer),))
        return size

    def _seen(self, data: bytes, *, at_end: bool = False, sized: tuple[int, ...] = ()) -> bytes:
        self._copy.add(data)
        if self._length is not None:
            self._copy.ended = self._copy.length >= self._length
        elif at_end or (not data and sized != (0,)):
            self._copy.ended = True
        return data


# ------------------------------------------------------------------------------- its messages


async def messages_ahead(receive: Receive) -> tuple[bytes, Receive]:
    """Return the request's body, and what gives the application the same messages again.

    Args:
        receive: what the ASGI server gave.
    """
    messages: list[Message] = []
    more = True
    while more:
        messages.append(await receive())
        more = messages[-1].get("more_body", False)
    body = b"".join(message.get("body", b"") for message in messages)

    async def again() -> Message:
        return messages.pop(0) if messages else await receive()

    return body, again


def copied_messages(receive: Receive, copy: BodyCopy) -> Receive:
    """Return what gives the application the server's messages, and a copy of their bytes.

    Args:
        receive: what the ASGI server gave.
        copy: grows by what is received.
    """

    async def copied() -> Message:
        message = await receive()
        if message["type"] == "http.request":
            copy.add(message.get("body", b""))
            copy.ended = not message.get("more_body", False)
        return message

    return copied


# ------------------------------------------------------------------------------- the response


class Steps:
    """A response step by step, with its session current in each.

    Args:
        trace: the request's.
        chunks: what the application returned.
        count: how many chunks there are, where that is known.
    """

    def __init__(self, trace: RequestTrace, chunks: Any, count: int | None = None) -> None:
        self.trace = trace
        self.chunks = chunks
        self._to_come = count
        self._iterator: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        chunk: bytes = self.step()
        self._passed(chunk, StopIteration)
        return chunk

    def step(self) -> Any:
        """Return the next chunk, END after the last."""
        with self.trace.at_work():
            if self._iterator is None:
                self._iterator = iter(self.chunks)
            return next(self._iterator, END)

    def _passed(self, chunk: bytes, end: type[Exception]) -> None:
        if chunk is END:
            self.trace.complete()
            raise end
        if self._to_come is not None:
            self._to_come -= 1
        self.trace.passing(chunk, last=self._to_come == 0)
        if self.trace.ended:
            self.trace.complete()

    def close(self) -> None:
        """End the request; a response to HEAD is whole, though servers may not step through it."""
        if self.trace.request.method == "HEAD":
            self.trace.complete()
        self.trace.close()


class AsyncSteps(Steps):
    """The same for an async iterator."""

    __iter__ = None  # type: ignore[assignment]

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        with self.trace.at_work():
            chunk: bytes = await anext(self.chunks, END)
        self._passed(chunk, StopAsyncIteration)
        return chunk


__all__ = [
    "END",
    "AsyncSteps",
    "CopiedFile",
    "Message",
    "Receive",
    "Steps",
    "copied_messages",
    "copy_file",
    "messages_ahead",
    "read_ahead",
]
