"""The one error that bad input raises: what is wrong, where, and what to do, in one line."""

from __future__ import annotations


class InputError(Exception):
    """Input that cannot be used; the message is one line that names the place and the remedy."""
