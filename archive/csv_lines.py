"""Lines of a CSV file for `csv.reader`: in bounded memory, and to be read again behind a bad quote.

lines = Lines(text)
for cells in csv.reader(lines, strict=True):
    lines.begin_row()
"""

from __future__ import annotations

import codecs
import csv
import io
from collections import deque
from typing import Self

from communique.archive.readers import MAX_STATEMENT_BYTES

MOST_CELL = 2**31 - 1
"""Python's bound on a cell of CSV is one for the whole process: lifted, since rows have their own."""
MARKED = "communique.marked"
"""Name of the error handler that decodes bad bytes to a lone surrogate."""


def _marked(error: UnicodeError) -> tuple[str, int]:
    """Undecodable bytes, in any encoding, as a lone surrogate, which rejects its own row and no other."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\udc80", error.end


codecs.register_error(MARKED, _marked)


class Lines:
    """Lines for `csv.reader`, in bounded memory, that can be read again behind a bad quote.

    An unclosed quote swallows rows until the next quote. Its own line is lost, the others are given back
    and read as rows of their own, once, so that no file takes more than twice its length to read. Not
    where the table has a single column: nothing there tells a row from a line inside a quoted cell.
    """

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self._waiting: deque[str] = deque()
        self._row: list[str] = []
        self._size = 0
        self._cut = False
        """Whether the row's last line was too long to be kept."""
        self._number = 0
        self._twice = 0
        """The last line that was given back: a row that begins before its end gives back none."""
        self.first = self._read()
        self._waiting.append(self.first)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line = self._waiting.popleft() if self._waiting else self._read()
        if not line:
            raise StopIteration
        self._number += 1
        self._row.append(line)
        self._size += len(line)
        if self._size > MAX_STATEMENT_BYTES:
            self._cut = not line.endswith(("\n", "\r"))
            while line and not line.endswith(("\n", "\r")):
                line = self._read()
            raise csv.Error(f"over {MAX_STATEMENT_BYTES // 1_000_000} MB")
        return line

    def begin_row(self) -> None:
        """Forget the lines of the row before."""
        self._row.clear()
        self._size, self._cut = 0, False

    def give_back(self) -> int:
        """Let the bad row's lines but the first be read again; how many."""
        if self._number - len(self._row) < self._twice or self._cut:
            return 0
        again = self._row[1:]
        self._waiting.extendleft(reversed(again))
        self._twice = self._number
        self._number -= len(again)
        return len(again)

    def place(self, again: int) -> str:
        """Which lines the bad row took."""
        last = self._number
        first = last - (len(self._row) - again) + 1
        return f"line {last}" if first == last else f"lines {first} to {last}"

    def _read(self) -> str:
        return self._text.readline(MAX_STATEMENT_BYTES + 1)
