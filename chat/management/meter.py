"""How far a long command is, on standard error: one line that moves on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any, Final

from llmchat.lib.wording import counted

_WIDTH: Final = 30
_TERMINAL_SECONDS, _PLAIN_SECONDS = 0.2, 10.0


class Meter:
    """`stream`: a command's `stderr`. `unit`: what one and what several are called. `done`: what was there before."""

    def __init__(self, stream: Any, unit: tuple[str, str], *, done: int = 0) -> None:
        self._stream, self._unit, self._before = stream, unit, done
        self._is_terminal = stream.isatty()
        self._began = self._told = time.monotonic()

    def tell(self, done: int, part: float) -> None:
        """`part`: from 0 to 1, how far it is."""
        now = time.monotonic()
        if now - self._told < (_TERMINAL_SECONDS if self._is_terminal else _PLAIN_SECONDS):
            return
        self._told = now
        rate = (done - self._before) / max(now - self._began, 0.001)
        filled = int(_WIDTH * part)
        bar = f"[{'█' * filled}{'·' * (_WIDTH - filled)}] " if self._is_terminal else ""
        left = f", about {self._left(done, part, rate)} left" if part > 0.01 and rate else ""
        line = f"{bar}{part:4.0%}, {counted(done, *self._unit)}, {rate:,.0f} a second{left}"
        self._stream.write(
            f"\r{line}\x1b[K" if self._is_terminal else line, style_func=str, ending="" if self._is_terminal else "\n"
        )

    def end(self) -> None:
        """Leaves the line."""
        if self._is_terminal:
            self._stream.write("\r\x1b[K", style_func=str, ending="")

    @staticmethod
    def _left(done: int, part: float, rate: float) -> dt.timedelta:
        return dt.timedelta(seconds=int(max(done / part - done, 0) / rate))
