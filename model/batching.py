"""Concurrent requests -> few forward passes: a bounded queue and one worker thread.

    batcher = Batcher(classifier.probabilities)
    async with batcher:                       # starts the worker; leaving waits for what was accepted
        with batcher.room(len(inputs)) as done:   # raises `QueueFullError` instead of letting a queue grow
            probabilities, truncated = await batcher.score(inputs)
            done(len(inputs))                     # gives room back

Nobody waits for a batch to fill: an idle worker starts at once, and what arrives while it is busy is
gathered, up to a budget of tokens, into its next turn. The longest wait for company is one turn.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Self

import numpy as np
import numpy.typing as npt

from communique.model.tokens import SentenceInput

Scores = tuple[npt.NDArray[np.float64], list[bool]]
"""Probabilities (sentences, 5), and for each sentence whether it was cut."""

TURN_BUDGET = 4096
"""Tokens a turn of the worker, estimated: about 100 sentences, so that a short request never waits long."""
QUEUE_LIMIT = 10_000
"""Sentences accepted and not yet labelled."""
_CHARACTERS_A_TOKEN = 4
_RETRY_SECONDS = (1, 60)
_ALWAYS = 32
"""Sentences that may wait however slow the machine is: less than a turn, which no refusal would shorten."""
_FIRST_GUESS = (0.4, 100.0)
"""Seconds and sentences of a turn, until turns have been measured."""
_FADE = 0.9


class QueueFullError(Exception):
    """The queue has no room; `retry_after` is the number of seconds after which it should."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"busy: try again in {retry_after} s")
        self.retry_after = retry_after


@dataclass
class _Job:
    inputs: Sequence[SentenceInput]
    tokens: int
    result: asyncio.Future[Scores]


class Batcher:
    """Gathers the sentences of concurrent requests; belongs to one event loop.

    Args:
        score: inputs -> scores, run in the worker thread, never on the event loop.
        budget: estimated tokens a turn; a single longer job goes alone.
        limit: sentences accepted and not yet labelled, over all requests.
        max_wait: seconds that a new request may have to wait for its first turn, at the speed measured.
        max_work: seconds that everything accepted may take: more could not be done within a time limit.
        reads: most tokens of a sentence, of the one before and of the one after that the model reads.
        on_turn: told the number of sentences of each turn, for metrics.
    """

    def __init__(
        self,
        score: Callable[[Sequence[SentenceInput]], Scores],
        *,
        budget: int = TURN_BUDGET,
        limit: int = QUEUE_LIMIT,
        max_wait: float = math.inf,
        max_work: float = math.inf,
        reads: tuple[int, int, int] = (128, 0, 0),
        on_turn: Callable[[int], None] = lambda sentences: None,
    ) -> None:
        self._score = score
        self._budget = budget
        self._limit = limit
        self._max_wait = max_wait
        self._max_work = max_work
        self._reads = reads
        self._waiting = 0  # sentences in the queue or in a turn: a long request is here piece by piece
        self._on_turn = on_turn
        self._jobs: deque[_Job] = deque()
        self._open: dict[asyncio.Future[Scores], int] = {}
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="forward")
        self._measured = _FIRST_GUESS
        self.held = 0
        """Sentences accepted and not yet labelled."""

    async def __aenter__(self) -> Self:
        self._worker = asyncio.create_task(self._work())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._open:
            await asyncio.wait(self._open)
        self._worker.cancel()
        self._thread.shutdown()

    @contextmanager
    def room(self, sentences: int) -> Iterator[Callable[[int], None]]:
        """Hold room in the queue for a request; what is yielded gives room back for sentences labelled.

        A request longer than the whole queue is let in when nothing else waits.

        Raises:
            QueueFullError: no room now.
        """
        wanted, pace = self.held + sentences, self._seconds_a_sentence
        full = wanted > self._limit or wanted * pace > self._max_work
        slow = self._waiting > _ALWAYS and self._waiting * pace > self._max_wait
        if self.held and (full or slow):
            raise QueueFullError(self.retry_after)
        self.held += sentences
        left = sentences

        def done(labelled: int) -> None:
            nonlocal left
            self.held -= labelled
            left -= labelled

        try:
            yield done
        finally:
            self.held -= left

    @property
    def retry_after(self) -> int:
        """Seconds in which what is queued should be done, at the speed measured so far."""
        least, most = _RETRY_SECONDS
        return min(most, max(least, math.ceil(self.held * self._seconds_a_sentence)))

    @property
    def _seconds_a_sentence(self) -> float:
        seconds, sentences = self._measured
        return seconds / sentences

    def _measure(self, seconds: float, sentences: int) -> None:
        """Add a turn; older turns fade, and one counts by its sentences: small ones are slower a sentence."""
        before, many = self._measured
        self._measured = (_FADE * before + seconds, _FADE * many + sentences)

    async def score(self, inputs: Sequence[SentenceInput]) -> Scores:
        """Scores of the inputs, in order; whatever `score` raised is raised here."""
        job = _Job(inputs, sum(map(self._tokens, inputs)), asyncio.get_running_loop().create_future())
        self._open[job.result] = len(inputs)
        self._waiting += len(inputs)
        job.result.add_done_callback(self._leave)
        self._jobs.append(job)
        self._arrived.set()
        return await job.result

    def _leave(self, result: asyncio.Future[Scores]) -> None:
        self._waiting -= self._open.pop(result)

    def _tokens(self, sentence: SentenceInput) -> int:
        """Estimated, with what the model reads beside the sentence and the marks between them."""
        parts = zip((sentence.text, sentence.before, sentence.after), self._reads, strict=True)
        return 2 + sum(min(len(part) // _CHARACTERS_A_TOKEN, most) for part, most in parts)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            jobs = self._next_turn()
            if not jobs:
                self._arrived.clear()
                continue
            inputs = [i for job in jobs for i in job.inputs]
            began = perf_counter()
            turn = loop.run_in_executor(self._thread, self._score, inputs)
            await asyncio.wait([turn])
            self._measure(perf_counter() - began, len(inputs))
            self._on_turn(len(inputs))
            _hand_out(turn, jobs)

    def _next_turn(self) -> list[_Job]:
        """Waiting jobs in order of arrival, up to the budget; those whose request is gone are dropped."""
        jobs: list[_Job] = []
        tokens = 0
        while self._jobs and (not jobs or tokens + self._jobs[0].tokens <= self._budget):
            job = self._jobs.popleft()
            if job.result.cancelled():
                continue
            if not job.inputs:
                job.result.set_result((np.empty((0, 5)), []))
                continue
            jobs.append(job)
            tokens += job.tokens
        return jobs


def _hand_out(turn: asyncio.Future[Scores], jobs: Sequence[_Job]) -> None:
    """Give each job its rows of the turn's scores, or the turn's error."""
    error = turn.exception()
    start = 0
    for job in jobs:
        end = start + len(job.inputs)
        if job.result.done():  # its request went away meanwhile
            pass
        elif error is not None:
            job.result.set_exception(error)
        else:
            probabilities, truncated = turn.result()
            job.result.set_result((probabilities[start:end], truncated[start:end]))
        start = end
