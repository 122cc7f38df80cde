"""The benchmark's own promises: its table is what its results say, its load takes no wrong answer for a right one."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench import budgets, open_streams, soak, table
from bench.load import NUMBER, Ask, Load, Tally, Task
from llmchat.tests.servers import PROJECT, free_port

_CHUNK = b'data: {"choices":[{"delta":{"content":"word%d "}}]}\n\n'
_DONE = b"data: [DONE]\n\n"


def test_the_table_of_the_readme_is_made_from_the_results() -> None:
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    assert table.in_readme(readme) == table.current(), "make it anew: .venv/bin/python -m bench.table --write"


def test_the_table_goes_between_the_marks_and_nowhere_else() -> None:
    text = f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n"
    assert table.put(text, "new") == f"before\n{table.BEGIN}\nnew\n{table.END}\nafter\n"


def test_results_name_no_place_of_the_machine() -> None:
    for path in sorted((PROJECT / "bench" / "results").glob("*.json")):
        text = path.read_text()
        assert str(PROJECT) not in text, path
        assert str(Path.home()) not in text or str(Path.home()) == "/", path
        assert "/tmp/" not in text, path


# --- The load ---------------------------------------------------------------------------------------------------------


@contextmanager
def answering(*answers: bytes) -> Iterator[int]:
    """A server on the port it yields that gives these answers, one after the other on whatever connection, then the
    last one again and again. One that ends in a full stop byte 0x00 is followed by the end of the connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    waiting = list(answers)

    def serve() -> None:
        while True:
            try:
                link, _ = listener.accept()
            except OSError:
                return
            with link:
                while link.recv(65536):
                    answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
                    link.sendall(answer.removesuffix(b"\0"))
                    if answer.endswith(b"\0"):
                        break

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def asked(port: int, *, streamed: bool, count: int = 1) -> Tally:
    ask = Ask("/", {}, f'{{"n": "{NUMBER}"}}', words=3, streamed=streamed)
    return Load(Task(host="127.0.0.1", port=port, asks=[ask], connections=1, count=count, patience=1.0)).run()


def whole(body: bytes, status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status.encode(), len(body), body)


def chunked(*pieces: bytes) -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%b0\r\n\r\n" % body


def answer_of(text: str) -> bytes:
    return json.dumps({"choices": [{"message": {"content": text}}]}).encode()


RIGHT = answer_of("word0 word1 word2 ")
WORDS = [_CHUNK % number for number in range(3)]


@pytest.mark.parametrize("answer", [whole(RIGHT), chunked(RIGHT[:20], RIGHT[20:])])
def test_a_whole_answer_counts(answer: bytes) -> None:
    with answering(answer) as port:
        tally = asked(port, streamed=False, count=3)
    assert (tally.asked, tally.answered, tally.errors) == (3, 3, {})


@pytest.mark.parametrize(
    "pieces",
    [[*WORDS, _DONE], [b"".join([*WORDS, _DONE])], [WORDS[0][:30], WORDS[0][30:] + WORDS[1] + WORDS[2] + _DONE]],
)
def test_a_stream_counts_however_it_is_cut_into_pieces(pieces: list[bytes]) -> None:
    with answering(chunked(*pieces)) as port:
        tally = asked(port, streamed=True, count=3)
    assert (tally.asked, tally.answered, tally.errors) == (3, 3, {})
    assert tally.first_p50 is not None


@pytest.mark.parametrize(
    ("answer", "streamed", "fault"),
    [
        (whole(answer_of("word0 word1 ")), False, "not the vendor's 3 words"),
        (whole(answer_of("word1 word0 word2 ")), False, "not the vendor's 3 words"),
        (whole(b"word0 word1 word2 "), False, "not an answer (JSONDecodeError"),
        (whole(b"{}", status="503 Service Unavailable"), False, "status 503"),
        (chunked(*WORDS[:2], _DONE), True, "not the vendor's 3 words"),
        (chunked(*WORDS), True, "a stream without its end"),
        (chunked(*WORDS, _DONE)[:-20] + b"\0", True, "cut"),
        (chunked(*WORDS, b'event: error\ndata: {"error": {}}\n\n'), True, "a stream without its end"),
        (b"\0", False, "cut"),
    ],
)
def test_a_wrong_answer_does_not(answer: bytes, streamed: bool, fault: str) -> None:
    with answering(answer) as port:
        tally = asked(port, streamed=streamed)
    assert (tally.asked, tally.answered) == (1, 0)
    (found,) = tally.errors
    assert found.startswith(fault)


def test_a_connection_that_is_closed_is_replaced() -> None:
    with answering(whole(RIGHT), b"\0", whole(RIGHT)) as port:
        tally = asked(port, streamed=False, count=4)
    assert (tally.asked, tally.answered, tally.errors) == (4, 3, {"cut": 1})


def test_an_answer_that_never_comes_is_given_up() -> None:
    with answering(b"HTTP/1.1 200 OK\r\n") as port:
        tally = asked(port, streamed=False)
    assert (tally.asked, tally.answered, tally.errors) == (1, 0, {"no answer in time": 1})


def test_a_gateway_that_is_not_there_is_an_error_of_each_connection() -> None:
    tally = asked(free_port(), streamed=False)
    assert (tally.asked, tally.answered, tally.errors) == (1, 0, {"not connected (ECONNREFUSED)": 1})


# --- The verdicts -----------------------------------------------------------------------------------------------------


def report_of(**per_second: tuple[float, float]) -> dict:
    """A report with throughputs of whole answers only: by the clock, and by processor time."""
    figures = {
        name: {"per_second": clock, "per_cpu_second": cpu, "runs": []} for name, (clock, cpu) in per_second.items()
    }
    return {"gateways": {}, "layout": {"two_share": True}, "figures": {"whole_64": figures}}


def verdict_on(peer: str, report: dict) -> tuple[float | None, str]:
    rows = {row["what"]: row for row in budgets.evaluate(report)}
    row = rows[f"whole answers against {peer}"]
    return row["measured"], row["verdict"]


def test_a_budget_is_judged_by_the_lower_ratio() -> None:
    assert verdict_on("portkey", report_of(llmchat_sqlite=(900, 800), portkey=(100, 200))) == (4.0, "met")
    assert verdict_on("portkey", report_of(llmchat_sqlite=(500, 900), portkey=(100, 100))) == (5.0, "aim met")
    assert verdict_on("portkey", report_of(llmchat_sqlite=(290, 900), portkey=(100, 100))) == (2.9, "MISSED")
    assert verdict_on("portkey", report_of(llmchat_sqlite=(290, 900))) == (None, "not measured")


@pytest.mark.parametrize(("rows", "verdict"), [(10, "aim met"), (9, "MISSED"), (11, "MISSED")])
def test_rows_and_calls_must_be_the_same_in_every_run(rows: int, verdict: str) -> None:
    report = report_of(llmchat_sqlite=(1, 1))
    good = {"upstream_calls": 1000, "attempts": 1000, "interactions": 1000}
    report["figures"]["whole_64"]["llmchat_sqlite"]["runs"] = [
        good,
        {"upstream_calls": 10, "attempts": rows, "interactions": 10},
        good,
    ]
    row = next(row for row in budgets.evaluate(report) if row["what"].startswith("rows on record"))
    assert (row["measured"], row["verdict"]) == (rows / 10, verdict)


def test_a_soak_holds_only_while_memory_is_flat() -> None:
    report = {
        "asked": 8, "answered": 8, "attempts": 8, "upstream_calls": 8, "interactions": 8,
        "journal": [], "verify_record": {"ended_with": 0},
    }  # fmt: skip
    flat = soak.judge(report | {"rss_by_quarter": soak.quarters([90, 100, 100, 100, 101, 102, 103, 104])})
    assert all(flat.values())
    grown = soak.judge(report | {"rss_by_quarter": soak.quarters([90, 100, 100, 100, 101, 102, 106, 106])})
    assert [what for what, holds in grown.items() if not holds] == [
        "memory of the last quarter within 5 % of the second's"
    ]


# --- Streams that stay open ------------------------------------------------------------------------------------------


def test_too_few_files_are_said_before_anything_starts() -> None:
    with pytest.raises(open_streams.TooFewFiles, match=r"10000000 streams need \d+ open files, \d+ are"):
        open_streams.raise_file_limit(10_000_000, 2)
