"""What the service is started with: limits, token, model.

Settings(max_sentences=500)      # every value has a default; `communique serve --help` lists the options
"""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

from communique.model.errors import InputError


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the service is started with."""

    model: str | None = None
    """Folder of the model; the one that ships if None."""
    backend: str = "auto"
    """What runs the model, one of `backends.BACKENDS`."""
    threads: int | None = None
    """Threads of a forward pass; one a core if None."""
    token_file: str | None = None
    """File with the bearer token; without it, the environment's COMMUNIQUE_TOKEN, or none is asked for."""
    max_body_bytes: int = 2_000_000
    max_sentences: int = 5_000
    """Sentences a request."""
    max_carried_bytes: int = 20_000_000
    """Bytes of ids and metadata in the records of one request, which repeat them for every sentence."""
    max_held_bytes: int = 200_000_000
    """Bytes of bodies, of each from its arrival to its answer's last byte, over all requests; then 429."""
    max_queued: int = 10_000
    """Sentences accepted and not yet labelled, over all requests."""
    max_wait: float = 2.0
    """Seconds that a request may have to wait for its first turn; then 429. Keeps what is accepted fast."""
    max_reading: int = 256
    """Requests whose bodies are being read or cut into sentences at once."""
    max_seconds: float = 60.0
    """From the end of a request's headers to its answer's last byte. The server has no limit for headers that
    trickle: such a connection costs a socket and holds up nobody; where it may be reached from outside, a
    proxy in front has one."""
    cors: tuple[str, ...] = ()
    """Origins whose pages may ask (`https://desk.example`); none by default."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "cors", tuple(self.cors))  # JSON carries it as a list
        for origin in self.cors:
            if not re.fullmatch(r"https?://[^/\s*]+", origin):
                raise InputError(
                    f"--cors {origin}: name an origin such as https://desk.example, without a path"
                )

    def token(self) -> str | None:
        """The bearer token that requests must carry, or None.

        Raises:
            InputError: the token file cannot be read, or a token is blank.
        """
        if self.token_file is None:
            place, text = "COMMUNIQUE_TOKEN", os.environ.get("COMMUNIQUE_TOKEN", "")
            if not text:
                return None
        else:
            place = self.token_file
            try:
                text = Path(place).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(f"{place}: the token cannot be read ({error})") from None
        if not text.strip():  # asked for, so that none at all would be a surprise
            raise InputError(f"{place}: holds no token: write one line of secret text into it")
        return text.strip()
