"""A request's body, read within the limits: what is too long, too slow or too much at once is refused.

intake = Intake(settings, held, retry_after=lambda: batcher.retry_after)
work = await intake.work(request)         # a request to label
data = await intake.body(request, 10_000_000)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.requests import ClientDisconnect, Request

from communique.model import requests
from communique.model.errors import InputError
from communique.model.guard import Held
from communique.model.settings import Settings

SMALL_BODY = 4096
"""Bytes; handing a smaller body to a thread takes longer than reading it."""
BODY_SECONDS = 15.0
"""A body that takes longer to arrive is given up."""


class RefusedError(Exception):
    """A request that gets an error instead of an answer."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Intake:
    """Reads what requests bring.

    Args:
        settings: the limits.
        held: bytes of all requests under way.
        retry_after: seconds that a client should wait who is told that the service is busy.
    """

    def __init__(self, settings: Settings, held: Held, *, retry_after: Callable[[], int]) -> None:
        self._settings = settings
        self._held = held
        self._retry_after = retry_after
        self._reading = 0

    async def work(self, request: Request) -> requests.Work:
        """A request to label, read and made ready.

        Raises:
            RefusedError: it cannot be, or not now.
        """
        kind = content_type(request)
        if kind != "application/json":
            raise RefusedError(415, f"content type {kind or 'missing'}: send JSON as application/json")
        if self._reading >= self._settings.max_reading:
            raise self._busy()
        self._reading += 1
        try:
            body = await self.body(request, self._settings.max_body_bytes)
            return await self._prepare(body)
        except requests.TooLargeError as error:
            raise RefusedError(413, str(error)) from None
        except InputError as error:
            raise RefusedError(422, str(error)) from None
        finally:
            self._reading -= 1

    async def _prepare(self, body: bytes) -> requests.Work:
        most = {
            "most_sentences": self._settings.max_sentences,
            "most_carried": self._settings.max_carried_bytes,
        }
        if len(body) < SMALL_BODY:
            return requests.prepare(body, **most)
        return await asyncio.to_thread(requests.prepare, body, **most)

    async def body(self, request: Request, most: int) -> bytes:
        """A request's body, of at most `most` bytes.

        Raises:
            RefusedError: too long, too slow, or more than may be held now.
        """
        too_long = RefusedError(413, f"body over {most:,} bytes: send it in parts", connection="close")
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > most:
            raise too_long
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > most:
                        raise too_long
                    if self._held.bytes > self._held.limit:
                        raise self._busy(connection="close")
        except ClientDisconnect:
            raise RefusedError(400, "the connection was closed before the body was whole") from None
        except TimeoutError:
            raise RefusedError(408, f"body not here after {BODY_SECONDS:g} s", connection="close") from None
        return bytes(body)

    def _busy(self, **headers: str) -> RefusedError:
        wait = str(self._retry_after())
        return RefusedError(429, f"busy: try again in {wait} s", retry_after=wait, **headers)


def content_type(request: Request) -> str:
    """Media type of a request's body, in lower case, without parameters; empty if it names none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
