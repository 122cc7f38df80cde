"""O9: very many streams open at once: none of them fails, and each holds little. `make open-streams` keeps 10,000."""

from __future__ import annotations

import pytest

from bench import open_streams

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

STREAMS = 2000


def test_two_thousand_streams_are_open_at_once_and_end_well() -> None:
    report = open_streams.run(streams=STREAMS, workers=1, database="sqlite", hold=2.0)
    assert (report["errors"], report["samples"]) == ({}, [])
    assert [what for what, holds in report["holds"].items() if not holds] == []
    assert report["bytes_per_stream"] < open_streams.MEMORY_LIMIT * 1e6 / 10_000
