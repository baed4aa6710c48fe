"""How an archive run goes on, in one line on the terminal: documents, sentences a second, time left."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from communique.archive.run import Watch


class Bar(Watch):
    """A progress bar over the bytes of the input; hidden where nobody looks."""

    def __init__(self, console: Console, *, hidden: bool) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[documents]:,} documents, {task.fields[rate]:,.0f} sentences/s"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=hidden or not console.is_terminal,
            speed_estimate_period=120,
        )
        self._task = self._progress.add_task("labelling", total=None, documents=0, rate=0.0)
        self._since = 0.0
        self._skipped = 0.0
        self.begun = False
        """Whether labelling has begun."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.begun:
            self._progress.stop()

    def begin(self, total_bytes: int, resumed: bool) -> None:
        """Show the bar."""
        self._since = time.monotonic()
        self._progress.update(
            self._task, total=total_bytes, description="going on" if resumed else "labelling"
        )
        self._progress.start()
        self.begun = True

    def advance(self, done_bytes: float, documents: int, sentences: float, skipped: bool) -> None:
        """Move it on; what an earlier run did counts for the bar and not for the speed."""
        if skipped:
            self._skipped = sentences
            self._since = time.monotonic()
            self._progress.reset(
                self._task, completed=int(done_bytes), documents=documents, rate=0.0, description="going on"
            )
            return
        seconds = max(time.monotonic() - self._since, 1e-6)
        rate = (sentences - self._skipped) / seconds
        self._progress.update(
            self._task, completed=done_bytes, documents=documents, rate=rate, description="labelling"
        )
