"""Who may ask at all, in both lanes of the real server, and that nothing sent to us is found in the log."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from presque.verbs import VERBS
from tests import rig
from tests.rig import Answer, Server

# One request of each lane that would take, store or change something.
FAST = [("GET", "/q/{}"), ("POST", "/q/{}"), ("POST", "/q/{}/lease"), ("POST", "/j/{}/1/ack")]
SLOW = [("PUT", "/q/{}"), ("DELETE", "/q/{}"), ("GET", "/qb/{}"), ("POST", "/qb/{}"), ("POST", "/control/{}")]
SLOW += [("DELETE", "/j/{}/1"), ("PATCH", "/p/{}"), ("POST", "/settle"), ("POST", "/j/{}/retry")]
SHOWING = [("GET", "/stats/"), ("GET", "/status/{}"), ("GET", "/"), ("GET", "/w/")]
EVERY = FAST + SLOW + SHOWING
BODY_OF = {"/q/{}": "2", "/qb/{}": '{"jobs":[2]}', "/control/{}": '{"status":"stop"}'}

HOST = "this server does not answer to the host `{}`; add it with --allow-host"
SITE = "requests that another site makes through a browser are refused"
PREFETCH = "prefetching is refused: a fetch takes a job"

PORT = "PORT"


def ask_all(server: Server, queue: str, requests: list[tuple[str, str]], **headers: str) -> list[Answer]:
    """Send each request with these headers; PORT in them is the server's."""
    headers = {name: value.replace(PORT, str(server.port)) for name, value in headers.items()}
    answers = []
    for method, path in requests:
        body = BODY_OF.get(path) if method in ("POST", "PUT") else None
        answers.append(server.ask(method, path.format(queue), body, timeout=30, **headers))
    return answers


@pytest.fixture
def one_job(server: Server, queue_name: str) -> Iterator[str]:
    """A queue with one job, which must be all that there is afterwards."""
    assert server.ask("POST", f"/q/{queue_name}", "1").status == 201
    yield queue_name
    found = server.ask("GET", f"/stats/{queue_name}").json
    assert (found["ready"], found["processed"], found["failed"], found["status"]) == (1, 0, 0, 1)
    assert server.ask("GET", f"/q/{queue_name}").body == b"1"


BAD_HOSTS = [
    "evil.example", "evil.example:5000", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.2",
    "0.0.0.0", "[::]", "[::1", "::1", "", "local host", "localhost@evil.example", "evil.example@localhost",
    "2130706433", "localhost,evil.example", "localhost:1@evil.example", "[::1]evil.example", "localhost:x",
    "localhost/", "[]", ":5000",
]  # fmt: skip


@pytest.mark.parametrize("host", BAD_HOSTS)
def test_a_host_that_is_not_ours_is_refused(server: Server, one_job: str, host: str) -> None:
    for answer in ask_all(server, one_job, EVERY, Host=host):
        assert (answer.status, answer.json["error"]) == (421, HOST.format(host))


@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost:PORT", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:5000", "localhost:"]
)
def test_a_loopback_host_passes_whatever_its_port(server: Server, queue_name: str, host: str) -> None:
    answers = ask_all(server, queue_name, [("POST", "/q/{}"), ("GET", "/q/{}"), *SHOWING], Host=host)
    assert [answer.status for answer in answers] == [201, 200, 200, 200, 200, 200]


BAD_ORIGINS = [
    "http://evil.example", "https://localhost.evil.example", "null", "", "http://localhost", "http://[",
    "http://[::1", "http://127.0.0.1:1", "http://evil.example@127.0.0.1:PORT", "127.0.0.1:PORT",
    "file://",
    "//127.0.0.1:PORT", "ftp://127.0.0.1:PORT", "http://127.0.0.1:PORT/",
    "http://127.0.0.1:PORT.evil.example", "https://evil.example/127.0.0.1:PORT", "http://\u0661", "a b",
    "chrome-extension://aaaa",
]  # fmt: skip


@pytest.mark.parametrize("origin", BAD_ORIGINS)
def test_a_page_of_another_origin_is_refused(server: Server, one_job: str, origin: str) -> None:
    sent = origin.encode().decode("latin-1")
    for site in {}, {"Sec_Fetch_Site": "same-origin"}, {"Sec_Fetch_Site": "none"}:
        for answer in ask_all(server, one_job, EVERY, Origin=sent, **site):
            assert answer.status == 403
            assert answer.json["error"].startswith("requests from pages of `")
            assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://127.0.0.1:PORT"},
        {"Origin": "HTTP://127.0.0.1:PORT", "Sec_Fetch_Site": "same-origin"},
        {"Origin": "http://localhost:PORT", "Host": "LOCALHOST:PORT"},
        {"Sec_Fetch_Site": "same-origin"},
        {"Sec_Fetch_Site": "none", "Sec_Fetch_Mode": "cors"},
        {"Sec_Purpose": ""},
        {"Purpose": "other"},
    ],
)
def test_our_own_pages_and_people_may_ask(server: Server, queue_name: str, headers: dict[str, str]) -> None:
    answers = ask_all(server, queue_name, [("POST", "/q/{}"), ("GET", "/q/{}"), *SHOWING], **headers)
    assert [answer.status for answer in answers] == [201, 200, 200, 200, 200, 200]


@pytest.mark.parametrize("site", ["cross-site", "same-site", "Cross-Site", "", "none, cross-site", "x"])
@pytest.mark.parametrize("mode", ["no-cors", "cors", "navigate", ""])
def test_what_another_site_makes_a_browser_ask_is_refused(
    server: Server, one_job: str, site: str, mode: str
) -> None:
    headers = {"Sec_Fetch_Site": site, "Sec_Fetch_Mode": mode}
    requests = [(method, path) for method, path in EVERY if path != "/"]
    for answer in ask_all(server, one_job, requests, **headers):
        assert (answer.status, answer.json["error"]) == (403, SITE)


def test_a_link_elsewhere_may_open_the_first_page_only_by_going_there(server: Server) -> None:
    for mode, status in ("navigate", 200), ("no-cors", 403), ("cors", 403):
        answer = server.ask("GET", "/", None, 30, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode=mode)
        assert answer.status == status


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Purpose": "prefetch"},
        {"Sec_Purpose": "prefetch;prerender"},
        {"Sec_Purpose": "prefetch;anonymous-client-ip"},
        {"Purpose": "prefetch"},
        {"Sec_Purpose": "prefetch", "Sec_Fetch_Site": "same-origin", "Origin": "http://127.0.0.1:PORT"},
    ],
)
def test_a_prefetch_is_refused(server: Server, one_job: str, headers: dict[str, str]) -> None:
    for answer in ask_all(server, one_job, EVERY, **headers):
        assert (answer.status, answer.json["error"]) == (403, PREFETCH)


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "HEAD"])
def test_a_preflight_is_never_granted(server: Server, one_job: str, method: str) -> None:
    answer = server.ask(
        method, f"/q/{one_job}", None, 30,
        Origin=f"http://127.0.0.1:{server.port}", Access_Control_Request_Method="PUT",
    )  # fmt: skip
    assert answer.status == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_further_hosts_and_origins_can_be_allowed() -> None:
    with rig.server(
        "--memory",
        "--insecure",
        "--allow-host",
        "Queue.Example",
        "--allow-host",
        "2001:db8::1",
        PRESQUE_ORIGINS="https://ui.example",
    ) as found:
        for headers, status in [
            ({"Host": "queue.example:81"}, 200),
            ({"Host": "other.example"}, 421),
            ({"Host": "[2001:db8::1]:81"}, 200),
            ({"Host": "[2001:db8::2]"}, 421),
            ({"Origin": "https://UI.example"}, 200),
            ({"Origin": "http://ui.example"}, 403),
            ({"Origin": "https://ui.example:444"}, 403),
            ({"Host": "queue.example", "Origin": "http://queue.example"}, 200),
        ]:
            [answer] = ask_all(found, "q", [("GET", "/stats/")], **headers)
            assert answer.status == status, headers


# --- browsers that do not say for which page they ask

BROWSER = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
)
SILENT = (
    "a browser that does not say which page it acts for may take and change nothing here; "
    "use HTTPS, or send a token in `Authorization`"
)
CHANGES = [(verb.method, verb.path) for verb in VERBS.values() if verb.route is not None and not verb.reads]
LOOKS = [(verb.method, verb.path) for verb in VERBS.values() if verb.route is not None and verb.reads]


def filled(path: str, queue: str) -> str:
    """A path of the table with a queue, and a job or a name, in its place."""
    for part in "{queue}", "{queues}":
        path = path.replace(part, queue)
    return re.sub(r"\{\w+\}", "1", path)


@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_a_browser_that_does_not_say_for_whom_it_asks_changes_nothing(
    server: Server, one_job: str, method: str, path: str
) -> None:
    for agent in BROWSER, "Mozilla/5.0 (compatible; Crawler/1.0)":
        answer = server.ask(method, filled(path, one_job), None, 30, User_Agent=agent)
        assert (answer.status, answer.json["error"]) == (403, SILENT)


@pytest.mark.parametrize(
    "headers",
    [
        {"User_Agent": "curl/8.5.0"},
        {"User_Agent": "Mozilla/5.0 (Windows NT; Windows NT 10.0; en-US) WindowsPowerShell/5.1.19041.1"},
        {"User_Agent": BROWSER, "Sec_Fetch_Site": "same-origin"},
        {"User_Agent": BROWSER, "Origin": "http://127.0.0.1:PORT"},
    ],
)
def test_programs_and_browsers_that_say_for_whom_they_ask_take_jobs(
    server: Server, queue_name: str, headers: dict[str, str]
) -> None:
    answers = ask_all(server, queue_name, [("POST", "/q/{}"), ("GET", "/q/{}")], **headers)
    assert [answer.status for answer in answers] == [201, 200]


@pytest.mark.parametrize(("method", "path"), LOOKS)
def test_a_browser_may_look(server: Server, one_job: str, method: str, path: str) -> None:
    if path in ("/c/{queues}", "/events"):
        return  # they do not end
    with_it = server.ask(method, filled(path, one_job), None, 30, User_Agent=BROWSER)
    assert with_it.status == server.ask(method, filled(path, one_job)).status != 403


# --- what only asks changes nothing

ROUTES = sorted({verb.path for verb in VERBS.values() if verb.route is not None})


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", [*ROUTES, "/ws", "/ws/{queues}"])
def test_head_and_options_change_nothing(server: Server, one_job: str, method: str, path: str) -> None:
    before = server.ask("GET", "/status/").json["queues"]
    for body in None, '{"status":"stop"}', "1":
        with contextlib.closing(server.connect()) as connection:
            lines = f"Host: localhost\r\nContent-Length: {len(body or '')}\r\n\r\n{body or ''}"
            connection.sendall(f"{method} {filled(path, one_job)} HTTP/1.1\r\n{lines}".encode())
            assert connection.recv(65536).startswith(b"HTTP/1.1 ")
    assert server.ask("GET", "/status/").json["queues"] == before


# --- pages of listed origins


@pytest.fixture(scope="module")
def listing() -> Iterator[Server]:
    with rig.server("--memory", PRESQUE_ORIGINS="https://ui.example,http://127.0.0.1:1") as found:
        yield found


def test_a_preflight_of_a_listed_origin_is_granted_on_every_route(listing: Server) -> None:
    for path in ROUTES:
        answer = listing.ask(
            "OPTIONS", filled(path, "q"), None, 30, Origin="https://ui.example",
            Access_Control_Request_Method="DELETE", Access_Control_Request_Headers="presque-lease",
            Access_Control_Request_Private_Network="true",
        )  # fmt: skip
        assert (answer.status, answer.body) == (204, b"")
        assert answer.headers["access-control-allow-origin"] == "https://ui.example"
        assert answer.headers["access-control-allow-private-network"] == "true"
        assert answer.headers["vary"] == "Origin"
        assert set(answer.headers["access-control-allow-methods"].split(", ")) >= {
            verb.method for verb in VERBS.values() if verb.route is not None
        }
        sent = {name.lower() for name in answer.headers["access-control-allow-headers"].split(", ")}
        assert sent >= {
            "authorization",
            "content-type",
            "idempotency-key",
            "presque-lease",
            "x-presque-workerid",
        }
        assert "access-control-allow-credentials" not in answer.headers
    assert listing.ask("GET", "/status/").json["queues"] == []


@pytest.mark.parametrize(
    "origin", ["https://ui.example:444", "http://ui.example", "https://evil.example", "null"]
)
def test_a_preflight_of_any_other_origin_is_refused(listing: Server, origin: str) -> None:
    answer = listing.ask("OPTIONS", "/q/q", None, 30, Origin=origin, Access_Control_Request_Method="POST")
    assert answer.status == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/q/{}", "1", 201),
        ("GET", "/q/{}", None, 404),
        ("POST", "/q/{}/lease", "{}", 204),
        ("POST", "/j/{}/1/ack?lease=x", None, 404),
        ("GET", "/stats/", None, 200),
        ("GET", "/nope", None, 404),
        ("POST", "/q/%7B%7D", "1", 400),
        ("POST", "/q/{}", "nope", 400),
        ("BREW", "/q/{}", None, 400),
        ("POST", "/q/{}", "1" * 1_100_000, 413),
    ],
)
def test_a_page_of_a_listed_origin_can_read_every_answer_that_knows_it(
    listing: Server, queue_name: str, method: str, path: str, body: str | None, status: int
) -> None:
    answer = listing.ask(method, path.format(queue_name), body, 30, Origin="https://UI.example")
    assert answer.status == status
    if method != "BREW":  # what cannot be read as a request says nothing of an origin
        assert answer.headers["access-control-allow-origin"] == "https://UI.example"
        exposed = answer.headers["access-control-expose-headers"].lower().split(", ")
        ours = {name for name in answer.headers if name.startswith("presque-")} | {"location", "retry-after"}
        assert ours <= set(exposed)
    plain = listing.ask(method, path.format(f"{queue_name}-2"), body)
    assert not [name for name in plain.headers if name.startswith("access-control")]


def test_a_stream_to_a_listed_origin_has_the_headers_too(listing: Server) -> None:
    for path in "/events", "/c/q":
        with contextlib.closing(listing.connect()) as connection:
            connection.sendall(
                f"GET {path} HTTP/1.1\r\nHost: localhost\r\nOrigin: https://ui.example\r\n\r\n".encode()
            )
            assert b"\r\nAccess-Control-Allow-Origin: https://ui.example\r\n" in connection.recv(65536)


def test_over_tls_a_page_of_ours_has_come_over_tls(pem: Path) -> None:
    with rig.tls_server(pem, "--memory") as found:
        for scheme, status in ("https", 200), ("http", 403):
            answer = found.ask("GET", "/stats/", None, 30, Origin=f"{scheme}://127.0.0.1:{found.port}")
            assert answer.status == status


# --- the log ----------------------------------------------------------------------------------------

CANARY = "canary-5417-secret"


@pytest.mark.parametrize("form", ["plain", "json"])
def test_no_body_or_header_is_ever_logged_nor_a_name_but_of_a_queue_that_was_changed(form: str) -> None:
    with rig.server("--memory", "--log-format", form, "--log-level", "debug") as found:
        queue, body = f"q-{CANARY}", f'{{"password":"{CANARY}"}}'
        for path in (
            f"/q/{queue}", f"/qb/{queue}", f"/{CANARY}", f"/status/{queue}", f"/control/{queue}",
            f"/w/{queue}",
        ):  # fmt: skip
            for method in "POST", "PUT", "GET", "DELETE", "HEAD", "PATCH":
                for sent in body, f'{{"jobs":[{body}]}}', CANARY, f'{{"status":"{CANARY}"}}', None:
                    for query in "", f"?uniq={CANARY}", f"?{CANARY}=1", f"?priority={CANARY}":
                        found.ask(method, path + query, sent, 30, X_presque_workerid=f"w-{CANARY}",
                                  Authorization=f"Bearer {CANARY}")  # fmt: skip
        for headers in (
            {"Origin": f"http://{CANARY}"}, {"Host": CANARY}, {"Content_Encoding": CANARY},
            {"Prefer": CANARY},
            {"X_presque_workerid": f"a {CANARY}"}, {"Origin": "http://["},
            {"Upgrade": CANARY, "Connection": "upgrade"},
        ):  # fmt: skip
            for path in f"/q/{queue}", f"/stats/{queue}":
                found.ask("GET", path, None, 30, **headers)
        for raw in (
            f"GET /q/{CANARY} HTTP/9.9\r\n\r\n", f"{CANARY}\r\n\r\n",
            f"GET /stats/ HTTP/1.1\r\nHost: localhost\r\nX: {CANARY}\x00\r\n\r\n",
            f"CONNECT {CANARY}:1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
            f"PUT /q/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{CANARY}\r\n",
        ):  # fmt: skip
            found.raw(raw.encode())
        waiting = found.send("GET", f"/q/{queue}?wait=20")
        assert found.stop() == 0
        waiting.leave()
    # All of it, now that the process is gone, but who purged or stopped which queue.
    said = "".join(line for line in found.everything if not re.search(r"\bqueue\.[a-z_]+\b", line))
    assert CANARY not in said
    assert "Traceback" not in said
