"""Limits of the HTTP service: size, duration and number of requests.

A client that sends slowly, or never, holds a connection and nothing else, and that for some
seconds; bodies are held in memory for so many requests at a time and no more.
"""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect
from uvicorn.protocols.http.h11_impl import H11Protocol

from foldsmith.errors import ConfigError

# Connections at one time, idle ones too.
_MAX_CONNECTIONS = 256

# Seconds for the line and the headers of a request, if the client has not less for all of it.
_HEAD_S = 10.0

# Seconds that a refused request is read on and thrown away, so that its client sees the answer.
_DRAIN_S = 1.0

# Seconds after which a client may try again.
_RETRY_S = 2

# The status of a request whose client has disconnected; it is never sent.
_CLIENT_GONE = 499

_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: %d\r\nContent-Length: 0\r\n"
    b"Connection: close\r\n\r\n" % _RETRY_S
)
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class Limits:
    """Limits of requests.

    Attributes:
        megabytes: Size of a body, in 10^6 bytes.
        megapixels: Pixels of its images together, in 10^6: a small file can hold a picture that
            fills the memory.
        requests: Requests that are read or predicted at one time; memory holds the bodies of all of
            them.
        seconds: Time that a client has to send a request.
    """

    megabytes: float = 20.0
    megapixels: float = 50.0
    requests: int = 16
    seconds: float = 30.0

    def __post_init__(self) -> None:
        flags: dict[str, float] = {
            "max-megabytes": self.megabytes,
            "max-megapixels": self.megapixels,
            "max-requests": self.requests,
            "timeout": self.seconds,
        }
        for flag, value in flags.items():
            if not 0 < value < math.inf:
                raise ConfigError(f"--{flag}: {value:g} must be above 0")


class Turns:
    """The requests that are being served: no more than the limits allow.

    Args:
        limits: The limits.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._n = 0

    @asynccontextmanager
    async def one(self, request: Request) -> AsyncIterator[None]:
        """Serve a request within the context.

        Raises:
            HTTPException: As many are being served as may be (503).
        """
        if self._n >= self._limits.requests:
            await _drain(request)
            raise HTTPException(
                503,
                f"{self._n} requests are being served, and no more may be; try again in a moment",
                {"Retry-After": str(_RETRY_S), "Connection": "close"},
            )
        self._n += 1
        try:
            yield
        finally:
            self._n -= 1


async def read_body(request: Request, limits: Limits) -> bytes:
    """Read a body, but no more of it and no longer than is allowed.

    Raises:
        HTTPException: It is too large (413), takes too long (408), or its client has gone.
    """
    allowed = int(limits.megabytes * 1e6)
    too_large = HTTPException(
        413,
        f"the request is larger than {limits.megabytes:g} MB; send fewer or smaller images",
        # The rest of the request is not read.
        {"Connection": "close"},
    )
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > allowed:
        raise too_large
    body = bytearray()

    async def read() -> None:
        async for part in request.stream():
            body.extend(part)
            if len(body) > allowed:
                raise too_large

    try:
        await asyncio.wait_for(read(), limits.seconds)
    except asyncio.TimeoutError:
        raise HTTPException(
            408,
            f"the request was not complete after {limits.seconds:g} s",
            {"Connection": "close"},
        ) from None
    except ClientDisconnect:
        raise HTTPException(_CLIENT_GONE, "the client has gone") from None
    return bytes(body)


async def _drain(request: Request) -> None:
    """Read and drop a client's data for a moment."""

    async def read() -> None:
        async for _ in request.stream():
            pass

    try:
        await asyncio.wait_for(read(), _DRAIN_S)
    except (asyncio.TimeoutError, ClientDisconnect):
        return


def protocol_of(limits: Limits) -> type[H11Protocol]:
    """Return uvicorn's protocol of a connection, with bounds on number and time.

    Args:
        limits: The limits.
    """
    seconds = min(_HEAD_S, limits.seconds)

    class BoundedProtocol(H11Protocol):
        """Ends connections whose requests do not begin, or whose heads do not end."""

        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > _MAX_CONNECTIONS:
                self._end(_BUSY)
                return
            self._wait_for_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._is_answering():
                self._stop_waiting()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if not self.transport.is_closing() and not self._is_answering():
                self._wait_for_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def _is_answering(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def _wait_for_head(self) -> None:
            self._stop_waiting()
            self._deadline = self.loop.call_later(seconds, self._end, _TOO_SLOW)

        def _stop_waiting(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _end(self, answer: bytes) -> None:
            if not self.transport.is_closing():
                self.transport.write(answer)
                self.transport.close()

    return BoundedProtocol
