"""POST /qb/{queue} with lines of JSON: any number of jobs, flat memory, a bad line is named."""

from __future__ import annotations

import json
import socket

import pytest

from tests import rig
from tests.doors.test_raw_requests import HOST, Wire, get, memory, wire
from tests.rig import Server

LINES = "application/x-ndjson"


def push(server: Server, queue: str, lines: bytes, query: str = "", **headers: str) -> rig.Answer:
    return server.ask("POST", f"/qb/{queue}{query}", lines, 60, Content_Type=LINES, **headers)


def in_chunks(queue: str, *chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    head = b"POST /qb/%b HTTP/1.1\r\n%bContent-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n"
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return head % (queue.encode(), HOST, LINES.encode()) + framed + end


def stored(server: Server, queue: str) -> list[str]:
    found: list[str] = []
    while (answer := server.ask("GET", f"/qb/{queue}?batch_size=1000")).status == 200:
        found += answer.json
    return found


def test_each_line_is_a_job_in_their_order(server: Server, queue_name: str) -> None:
    jobs = [json.dumps({"n": n, "t": "é" * (n % 3)}, ensure_ascii=False) for n in range(2500)]
    answer = push(server, queue_name, "\n".join(jobs).encode())
    assert answer.status == 201
    assert answer.json == {"pushed": 2500, "first": "1", "last": "2500", "queue": queue_name}
    assert stored(server, queue_name) == jobs


@pytest.mark.parametrize(
    ("lines", "jobs"),
    [
        (b"1", ["1"]),
        (b"1\n2\n", ["1", "2"]),
        (b"1\r\n2\r\n", ["1", "2"]),
        (b"\n\n 1 \n\n\t2", ["1", "2"]),
        (b'{"a": 1e400}\n12345678901234567890123\n[]', ['{"a": 1e400}', "12345678901234567890123", "[]"]),
    ],
)
def test_empty_lines_are_passed_over_and_bytes_are_kept(
    server: Server, queue_name: str, lines: bytes, jobs: list[str]
) -> None:
    assert push(server, queue_name, lines).json["pushed"] == len(jobs)
    assert stored(server, queue_name) == jobs


@pytest.mark.parametrize("before", [0, 1, 999, 1000, 4321])
@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (b"{nope}", "the body is not JSON"),
        (b'"\xff"', "not UTF-8"),
        (b"1 2", "the body is not JSON"),
        (b'{"a":', "the body is not JSON"),
    ],
)
def test_a_bad_line_ends_it_and_is_named(
    server: Server, queue_name: str, before: int, bad: bytes, says: str
) -> None:
    answer = push(server, queue_name, b"1\n" * before + bad + b"\n2\n" + b"3\n" * 10)
    assert answer.status == 400
    assert answer.json["error"].startswith(f"line {before + 1}: ")
    assert says in answer.json["error"]
    said = {0: "nothing was stored", 1: "the 1 job before it was stored"}
    assert answer.json["error"].endswith(f"; {said.get(before, f'the {before} jobs before it were stored')}")
    assert answer.headers["presque-error"] == "not-json"
    assert stored(server, queue_name) == ["1"] * before


def test_a_document_on_several_lines_is_not_a_line(server: Server, queue_name: str) -> None:
    assert push(server, queue_name, b'1\n{"a":\n1}\n').json["error"].startswith("line 2: ")


def test_nothing_is_no_job(server: Server, queue_name: str) -> None:
    for lines in b"", b"\n\n ":
        answer = push(server, queue_name, lines)
        assert (answer.status, answer.json) == (400, {"error": "job is missing"})


def test_parameters_are_for_each_job_and_keys_are_refused(server: Server, queue_name: str) -> None:
    assert push(server, queue_name, b"1\n2\n", "?delay=3600&priority=9").status == 201
    assert server.ask("GET", f"/stats/{queue_name}").json["scheduled"] == 2
    assert push(server, queue_name, b"1\n", "?uniq=a").status == 400
    assert push(server, queue_name, b"1\n", Idempotency_Key="k").status == 400


def test_a_queue_that_is_full_ends_it_and_later_answers_say_nothing_of_it(
    server: Server, queue_name: str
) -> None:
    assert server.ask("PATCH", f"/p/{queue_name}", b'{"max_length": 4000}').status == 200

    answer = push(server, queue_name, b"1\n" * 20_000)

    size = server.ask("GET", f"/stats/{queue_name}").json["ready"]
    assert answer.status == 429
    assert answer.json["error"].endswith(f"push again later; the {size} jobs before it were stored")
    assert 3000 < size <= 4000
    later = server.ask("POST", f"/qb/{queue_name}", b'{"jobs": [%b]}' % b",".join([b"1"] * 1000))
    assert later.json["error"] == "the queue is as long as its policy allows (`max_length`); push again later"


@pytest.mark.parametrize("size", [1024 * 1024 + 1, 3 * 1024 * 1024])
def test_a_line_that_is_too_long_is_named(server: Server, queue_name: str, size: int) -> None:
    line = b'"' + b"x" * (size - 2) + b'"'
    sent = server.send("POST", f"/qb/{queue_name}", b"1\n2\n" + line + b"\n3\n", Content_Type=LINES)
    answer = sent.answer()
    assert answer.status == 413
    assert answer.json["error"] == "line 3 is larger than 1048576 bytes; the 2 jobs before it were stored"
    assert stored(server, queue_name) == ["1", "2"]


def test_the_largest_line_is_taken(server: Server, queue_name: str) -> None:
    line = b'"' + b"x" * (1024 * 1024 - 2) + b'"'
    assert push(server, queue_name, b"\n".join([line] * 3)).json["pushed"] == 3


def test_chunks_may_end_anywhere(server: Server, queue_name: str) -> None:
    lines = b'{"a":1}\n"b"\n[3]\n'
    for size in range(1, len(lines) + 1):
        chunks = [lines[at : at + size] for at in range(0, len(lines), size)]
        request = in_chunks(queue_name, *chunks)
        with wire(server) as connection:
            connection.send(request + get(f"/status/{queue_name}"))
            assert connection.reply().json["pushed"] == 3
            assert connection.reply().status == 200
    with wire(server) as connection:
        connection.send(*(bytes([byte]) for byte in in_chunks(queue_name, lines[:3], lines[3:])))
        assert connection.reply().json["pushed"] == 3


def test_who_expects_100_continue_gets_it_before_a_long_body(server: Server, queue_name: str) -> None:
    head = b"POST /qb/%b HTTP/1.1\r\n%bContent-Type: %b\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
    with wire(server) as connection:
        connection.send(head % (queue_name.encode(), HOST, LINES.encode()))
        assert connection.reply().status == 100
        connection.send(b"1\n2\n" + get(f"/status/{queue_name}"))
        assert connection.reply().json["pushed"] == 2
        assert connection.reply().json["size"] == 2


@pytest.mark.parametrize("framing", [b"nope\r\n", b"2\r\n3\n4\n\r\n", b"-1\r\n"])
def test_a_chunk_that_is_wrong_ends_it(server: Server, queue_name: str, framing: bytes) -> None:
    with wire(server) as connection:
        connection.send(in_chunks(queue_name, b"1\n2\n", end=framing) + get("/status/"))
        reply = connection.reply()
        assert (reply.status, reply.headers["connection"]) == (400, "close")
        assert connection.closed()


def test_a_client_that_leaves_in_the_middle_stores_whole_lines_only(server: Server, queue_name: str) -> None:
    with wire(server) as connection:
        connection.send(in_chunks(queue_name, b'"whole"\n' * 100_000 + b'"par', end=b""))
        rig.eventually(lambda: server.ask("GET", f"/status/{queue_name}").json["size"] > 0)
    rig.eventually(lambda: server.ask("GET", "/status/").status == 200)
    assert set(stored(server, queue_name)) == {'"whole"'}


def test_memory_stays_flat_however_many_lines_come() -> None:
    with rig.server("--memory", "--maxmemory", "8MiB") as server:
        server.ask("GET", "/status/")
        before = memory(server)
        with wire(server) as connection:
            send_until_refused(connection, in_chunks("big", b"", end=b""), b'"' + b"x" * 990 + b'"\n')
            reply = connection.reply()
        assert reply.status == 507
        assert int(reply.json["error"].split("; the ")[1].split()[0]) > 1000
        assert memory(server) - before < 20 * 1024 * 1024


def send_until_refused(connection: Wire, head: bytes, line: bytes) -> None:
    """Send lines without end until the server answers."""
    connection.send(head.replace(b"0\r\n\r\n", b""))
    chunk = line * 64
    for _ in range(2000):
        connection.socket.setblocking(False)
        try:
            if connection.socket.recv(1, socket.MSG_PEEK):
                break
        except BlockingIOError:
            pass
        connection.socket.settimeout(rig.PATIENCE)
        try:
            connection.send(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        except ConnectionError:
            break
    connection.socket.settimeout(rig.PATIENCE)
