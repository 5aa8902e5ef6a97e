"""What holds for the answers of all routes: how they end, how errors are named, what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests import rig
from tests.doors.test_raw_requests import HOST, get, wire
from tests.rig import Server

# method, path, body, and the word in `Presque-Error` that it is answered with, if any
ASKED: list[tuple[str, str, str | None, str | None]] = [
    ("POST", "/q/{q}", "1", None),
    ("POST", "/q/{q}?uniq=a", "2", None),
    ("POST", "/q/{q}?uniq=a", "3", "job-exists"),
    ("POST", "/q/{q}", None, "job-missing"),
    ("POST", "/q/{q}", "nope", "not-json"),
    ("POST", "/q/{q}?priorty=1", "1", "unknown-parameter"),
    ("PUT", "/q/{q}", "1", None),
    ("POST", "/qb/{q}", '{"jobs":[1]}', None),
    ("GET", "/qb/{q}", None, None),
    ("GET", "/q/{q}", None, "no-job"),
    ("GET", "/q/%7B%7D", None, "invalid-name"),
    ("POST", "/q/{q}/lease", "{}", None),
    ("POST", "/q/{q}/lease", '{"count":0}', "invalid-request"),
    ("POST", "/settle", "{}", None),
    ("POST", "/settle", "{", "not-json"),
    ("POST", "/j/{q}/1/ack?lease=x", None, "job-gone"),
    ("GET", "/j/{q}", None, None),
    ("GET", "/j/{q}/99", None, "not-found"),
    ("GET", "/status/", None, None),
    ("GET", "/status/{q}", None, None),
    ("POST", "/control/{q}", '{"status":"stop"}', None),
    ("GET", "/control/{q}", None, None),
    ("GET", "/q/{q}", None, "queue-closed"),
    ("GET", "/w/", None, None),
    ("POST", "/w/{q}", None, "invalid-request"),
    ("GET", "/stats/", None, None),
    ("GET", "/stats/{q}", None, None),
    ("GET", "/p/{q}", None, None),
    ("PATCH", "/p/{q}", '{"keep":-1}', "invalid-request"),
    ("GET", "/cron/", None, None),
    ("GET", "/cron/none", None, "not-found"),
    ("POST", "/queue", '{"cmd":"stats"}', None),
    ("POST", "/queue", '[{"cmd":"fetch","queue":"{q}"}]', None),
    ("POST", "/queue", '{"cmd":"nothing"}', "invalid-request"),
    ("GET", "/nope", None, "no-such-route"),
    ("PUT", "/settle", None, "method-not-allowed"),
    ("GET", "/?nonsense=1", None, "unknown-parameter"),
    ("GET", "/ws", None, "invalid-request"),
]


def test_every_json_answer_ends_with_a_newline_and_every_error_is_named(
    server: Server, queue_name: str
) -> None:
    for method, path, body, code in ASKED:
        answer = server.ask(method, path.replace("{q}", queue_name), body and body.replace("{q}", queue_name))
        asked = f"{method} {path} {body}: {answer}"
        assert answer.headers.get("presque-error") == code, asked
        assert (answer.status >= 400) is (code is not None), asked
        assert answer.body.endswith(b"}\n") or answer.body.endswith(b"]\n") or answer.status == 204, asked
        assert not answer.body or int(answer.headers["content-length"]) == len(answer.body), asked


def test_what_cannot_be_read_is_named_too(server: Server) -> None:
    with wire(server) as connection:
        connection.send(b"GET / HTTP/1.1\r\n\r\n")
        reply = connection.reply()
    assert (reply.status, reply.headers["presque-error"]) == (400, "bad-request")
    assert reply.body.endswith(b"}\n")


def test_a_job_that_is_fetched_stays_as_it_came(server: Server, queue_name: str) -> None:
    for body in '"a"', '"b"\n', " 1 ", '{"a":\n1}':
        server.ask("POST", f"/q/{queue_name}", body)
        assert server.ask("GET", f"/q/{queue_name}").body == body.encode()


@pytest.mark.parametrize("path", ["/nope", "/q/%ff", "/q/{}", "/settle", "/stats/%ff"])
def test_an_error_to_a_head_has_no_body(server: Server, queue_name: str, path: str) -> None:
    with wire(server) as connection:
        connection.send(get(path.format(queue_name), "HEAD") + get(f"/status/{queue_name}"))
        assert connection.reply("HEAD").status >= 400
        assert connection.reply().status == 200


# --- looking takes nothing --------------------------------------------------------------------------

TAKING = ["/q/{}", "/qb/{}", "/c/{}", "/q/{},other-*"]


@pytest.mark.parametrize("path", TAKING)
def test_a_browser_that_opens_an_address_takes_no_job(server: Server, queue_name: str, path: str) -> None:
    server.ask("POST", f"/q/{queue_name}", "1")
    look = "/" if "," in path else f"/status/{queue_name}?with_desc=1"
    sent = {"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Site": "none"}
    answer = server.ask("GET", path.format(queue_name), None, 30, **sent)
    assert answer.status == 403
    assert answer.headers["link"] == f'<{look}>; rel="alternate"'
    assert look in answer.json["error"]
    page = server.ask("GET", path.format(queue_name), None, 30, Accept="text/html,*/*", **sent)
    assert (page.status, page.headers["content-type"]) == (403, "text/html; charset=utf-8")
    assert f'<a href="{look}">' in page.body.decode()
    assert server.ask("GET", look, None, 30, **sent).status == 200
    assert server.ask("GET", f"/status/{queue_name}").json["size"] == 1


@pytest.mark.parametrize("path", [*TAKING, "/q/{}?wait=20"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_get_that_brings_a_body_takes_no_job(
    server: Server, queue_name: str, path: str, chunked: bool
) -> None:
    server.ask("POST", f"/q/{queue_name}", "1")
    framing = (
        b"Transfer-Encoding: chunked\r\n\r\n1\r\n2\r\n0\r\n\r\n" if chunked else b"Content-Length: 1\r\n\r\n2"
    )
    with wire(server) as connection:
        connection.send(b"GET %b HTTP/1.1\r\n%b%b" % (path.format(queue_name).encode(), HOST, framing))
        reply = connection.reply()
        assert (reply.status, reply.json) == (400, {"error": "a GET takes a job; push with POST"})
        connection.send(get(f"/status/{queue_name}"))
        assert connection.reply().json["size"] == 1


# --- what clients of 2010 ask for -------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/q/", "/qb/", "/j/", "/control/"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_a_path_without_a_name_is_told_so(server: Server, path: str, method: str) -> None:
    answer = server.ask(method, path)
    assert (answer.status, answer.json) == (404, {"error": "queue name is missing"})


def test_a_control_without_a_body_and_a_put_of_many_are_told_so(server: Server, queue_name: str) -> None:
    answer = server.ask("POST", f"/control/{queue_name}")
    assert (answer.status, answer.json) == (400, {"error": "content is missing"})
    answer = server.ask("PUT", f"/qb/{queue_name}", '{"jobs":[1]}')
    assert (answer.status, answer.json) == (400, {"error": "PUT is not supported in batch mode"})


def test_the_list_of_workers_is_answered_under_any_name(server: Server, queue_name: str) -> None:
    server.ask("POST", f"/w/{queue_name}", X_presque_workerid="of-2010")
    answer = server.ask("GET", f"/w/{queue_name}")
    assert answer.status == 200
    assert "of-2010" in answer.json


def test_parameters_that_are_empty_are_as_if_not_given(server: Server, queue_name: str) -> None:
    for _ in range(2):
        assert server.ask("POST", f"/q/{queue_name}?delayed=&uniq=", "1").status == 201
    assert server.ask("GET", f"/status/{queue_name}?with_desc=").json == {"queue": queue_name, "size": 2}
    assert server.ask("GET", f"/qb/{queue_name}?batch_size=").json == ["1", "1"]
    assert isinstance(server.ask("GET", "/w/?worker_id=").json, list)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/q/{}", None),
        ("POST", "/q/{}", "1"),
        ("PUT", "/q/{}", "1"),
        ("GET", "/qb/{}", None),
        ("POST", "/q/{}/lease", None),
        ("GET", "/status/", None),
    ],
)
def test_an_invalid_worker_id_is_refused_everywhere(
    server: Server, queue_name: str, method: str, path: str, body: str | None
) -> None:
    answer = server.ask(method, path.format(queue_name), body, X_presque_workerid="a b")
    assert answer.status == 400


# --- targets and proxies ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://localhost/status/", 200),
        ("HTTP://LOCALHOST:1/status/", 200),
        ("https://127.0.0.1/status/", 200),
        ("http://evil.example/status/", 421),
        ("http://user@localhost/status/", 400),
        ("http:///status/", 400),
        ("ftp://localhost/status/", 400),
        ("http://localhost", 200),
        ("http://localhost/q/%ff", 400),
    ],
)
def test_the_host_of_a_target_in_absolute_form_counts(server: Server, target: str, status: int) -> None:
    for version in "1.1", "1.0":
        request = f"GET {target} HTTP/{version}\r\nHost: localhost\r\n\r\n".encode()
        with wire(server) as connection:
            assert connection.send(request).reply().status == status


def test_a_socket_without_upgrade_says_what_is_missing(server: Server, queue_name: str) -> None:
    for path in "/ws", "/ws/", f"/ws/{queue_name}":
        answer = server.ask("GET", path)
        wanted = {"error": "this needs a WebSocket: does the proxy pass Upgrade?"}
        assert (answer.status, answer.json) == (400, wanted)


def test_the_names_of_stopped_queues_do_not_burst_a_head() -> None:
    with rig.server("--memory") as server:
        names = [f"pz-{number:03}-{'x' * 100}" for number in range(700)]
        commands = [{"cmd": "push", "queue": name, "job": 1} for name in names]
        assert server.ask("POST", "/queue", json.dumps(commands)).status == 200
        for first in range(0, len(names), 100):
            stops = [{"cmd": "stop", "queue": name} for name in names[first : first + 100]]
            assert server.ask("POST", "/queue", json.dumps(stops)).status == 200
        answer = server.ask("POST", "/q/pz-*/lease")
    assert answer.status == 204
    assert answer.headers["presque-paused"].split(",") == names[:32]
    assert answer.headers["presque-paused-more"] == "668"
    assert sum(len(name) + len(value) for name, value in answer.headers.items()) < 8000


@pytest.fixture(scope="module")
def behind() -> Iterator[Server]:
    """A server that believes what stands in front of it."""
    with rig.server("--memory", PRESQUE_PROXIES="127.0.0.1") as found:
        yield found


def test_links_begin_with_what_a_proxy_took_off_the_path(behind: Server, queue_name: str) -> None:
    cron = {"queue": queue_name, "schedule": "@yearly", "body": 1}
    assert behind.ask("PUT", f"/cron/{queue_name}", json.dumps(cron)).status == 201
    pushes = (
        ("POST", f"/q/{queue_name}", "1"),
        ("PUT", f"/q/{queue_name}", "1"),
        ("POST", f"/q/{queue_name}?uniq=a", "1"),
        ("POST", f"/cron/{queue_name}/run", None),
    )
    for method, path, body in pushes:
        for prefix in "/presque", "", "/other/path/":  # one client after the other, with the same path
            answer = behind.ask(
                method, path.replace("=a", f"=a{len(prefix)}"), body, X_Forwarded_Prefix=prefix
            )
            assert answer.status == 201, answer
            place = f"{prefix.rstrip('/')}/j/{queue_name}/"
            assert answer.headers["location"].startswith(place), (method, path, answer.headers)
    answer = behind.ask("GET", f"/q/{queue_name}", X_Forwarded_Prefix="/presque", Sec_Fetch_Mode="navigate")
    assert answer.headers["link"] == f'</presque/status/{queue_name}?with_desc=1>; rel="alternate"'
    assert answer.status == 403


def test_a_client_cannot_say_what_links_begin_with(server: Server, queue_name: str) -> None:
    answer = server.ask("POST", f"/q/{queue_name}", "1", X_Forwarded_Prefix="//evil.example")
    assert (answer.status, answer.headers["location"]) == (201, f"/j/{queue_name}/1")
