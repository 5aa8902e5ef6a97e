"""Who a client is behind proxies, and that nobody can pass for another."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from presque.errors import CallerError
from presque.http.proxies import Client, Proxies, neighbourhood, normal

PROXIES = Proxies(map(ip_network, ("10.0.0.0/8", "127.0.0.1", "fd00::/8")))


def address(direct: str, **headers: str) -> str:
    found = {name.replace("_", "-"): value for name, value in headers.items()}
    return PROXIES.client(Client(direct), found).address


def test_headers_of_anybody_else_mean_nothing() -> None:
    stranger = Client("192.0.2.1", secure=False)
    headers = {
        "x-forwarded-for": "203.0.113.9",
        "x-forwarded-proto": "https",
        "x-forwarded-host": "localhost",
    }
    assert PROXIES.client(stranger, headers) is stranger
    assert PROXIES.client(stranger, {"forwarded": "for=203.0.113.9;proto=https;host=localhost"}) is stranger
    assert Proxies().client(Client("127.0.0.1"), headers) == Client("127.0.0.1")


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        ("203.0.113.9", "203.0.113.9"),
        (" 203.0.113.9 ", "203.0.113.9"),
        ("203.0.113.9:4711", "203.0.113.9"),
        ("[2001:db8::7]:4711", "2001:db8::7"),
        ("2001:db8::7", "2001:db8::7"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("198.51.100.1, 203.0.113.9", "203.0.113.9"),  # the client has made up the first
        ("198.51.100.1, 203.0.113.9, 10.1.2.3", "203.0.113.9"),  # by way of another proxy of ours
        ("198.51.100.1, 10.9.9.9, 203.0.113.9, 10.1.2.3, fd00::1", "203.0.113.9"),
        ("10.1.2.3", "10.1.2.3"),  # a client among the proxies
        ("", "127.0.0.1"),
        ("unknown", "127.0.0.1"),
        ("198.51.100.1, unknown", "127.0.0.1"),
        ("198.51.100.1, unknown, 10.1.2.3", "10.1.2.3"),
        ("203.0.113.999", "127.0.0.1"),
        ("203.0.113.9,", "127.0.0.1"),
        ("localhost", "127.0.0.1"),
    ],
)
def test_the_last_address_that_is_no_proxy_is_the_client(chain: str, client: str) -> None:
    assert address("127.0.0.1", x_forwarded_for=chain) == client


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ("for=203.0.113.9", "203.0.113.9"),
        ("FOR=203.0.113.9;Proto=HTTPS", "203.0.113.9"),
        ('for="203.0.113.9:80"', "203.0.113.9"),
        ('for="[2001:db8::7]:80";by=10.0.0.1', "2001:db8::7"),
        ("for=198.51.100.1, for=203.0.113.9;by=x, for=10.1.2.3", "203.0.113.9"),
        ("for=_hidden", "127.0.0.1"),
        ("for=198.51.100.1,proto=https", "127.0.0.1"),
        ('for="a\\",for=198.51.100.1"', "127.0.0.1"),
    ],
)
def test_forwarded_is_read_in_the_same_way(forwarded: str, client: str) -> None:
    assert address("127.0.0.1", forwarded=forwarded) == client


@pytest.mark.parametrize("forwarded", ["for", 'for="1.2.3.4', "for=1.2.3.4 5", "=x", "for=a b=c"])
def test_a_forwarded_that_cannot_be_read_is_refused(forwarded: str) -> None:
    with pytest.raises(CallerError, match="cannot be read"):
        address("127.0.0.1", forwarded=forwarded)


@pytest.mark.parametrize(
    "other",
    [{"x-forwarded-for": "1.2.3.4"}, {"x-forwarded-proto": "https"}, {"x-forwarded-host": "q.example"}],
)
def test_both_kinds_at_once_are_refused(other: dict[str, str]) -> None:
    with pytest.raises(CallerError, match="has Forwarded and X-Forwarded"):
        PROXIES.client(Client("127.0.0.1"), {"forwarded": "for=1.2.3.4", **other})


def test_scheme_and_host_are_those_of_the_nearest_proxy() -> None:
    def found(**headers: str) -> tuple[bool, str | None]:
        client = PROXIES.client(
            Client("127.0.0.1"), {name.replace("_", "-"): value for name, value in headers.items()}
        )
        return client.secure, client.host

    assert found(x_forwarded_proto="https", x_forwarded_host="q.example") == (True, "q.example")
    assert found(x_forwarded_proto="https, http", x_forwarded_host="evil, q.example") == (False, "q.example")
    assert found(forwarded='proto=http;host=evil, proto=https;host="q.example:443"') == (
        True,
        "q.example:443",
    )
    assert found(x_forwarded_for="1.2.3.4") == (False, None)
    for scheme, secure in ("wss", True), ("WSS", True), ("ws", False), ("httpss", False), ("https,", False):
        assert found(x_forwarded_proto=scheme) == (secure, None)
    assert PROXIES.client(Client("10.0.0.1", secure=True), {}).secure


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        # The second of our proxies says what the first one asked it for.
        (
            "for=203.0.113.9;proto=https;host=q.example, for=10.1.2.3;proto=http;host=x",
            (True, "q.example"),
        ),
        ("for=203.0.113.9, for=10.1.2.3;proto=https;host=q.example", (True, "q.example")),
        ("for=203.0.113.9;proto=https, for=10.1.2.3;proto=http;host=q.example", (True, "q.example")),
        # What the client has made up stands before.
        (
            "for=10.1.2.3;proto=https;host=evil, for=203.0.113.9;proto=http;host=q.example",
            (False, "q.example"),
        ),
        ("for=10.1.2.3;proto=https;host=evil, for=203.0.113.9", (False, None)),
        ("for=10.1.2.3;proto=https;host=evil, for=unknown", (False, None)),
        ("for=10.1.2.3;proto=https;host=evil, for=_x;host=q.example, for=10.1.2.4", (False, "q.example")),
        # A client among our proxies.
        ("for=10.1.2.3;proto=https, for=10.1.2.4;proto=http", (True, None)),
    ],
)
def test_scheme_and_host_are_those_that_the_client_asked_for(
    forwarded: str, client: tuple[bool, str | None]
) -> None:
    found = PROXIES.client(Client("127.0.0.1"), {"forwarded": forwarded})
    assert (found.secure, found.host) == client


def test_what_counts_as_one_address() -> None:
    assert neighbourhood("192.0.2.1") == "192.0.2.1"
    assert neighbourhood("2001:db8::1") == neighbourhood("2001:db8::ffff:1") == "2001:db8::/64"
    assert neighbourhood("2001:db8:0:1::1") == "2001:db8:0:1::/64"
    assert normal("fe80::1%eth0") == "fe80::1%eth0"
    assert neighbourhood("fe80::1%eth0") == "fe80::/64"


@pytest.mark.parametrize(
    ("text", "prefix"),
    [
        ("/presque", "/presque"),
        ("/presque/", "/presque"),
        ("/a/b.c", "/a/b.c"),
        ("/caf%C3%A9", "/caf%C3%A9"),
        ("/outer, /inner/", "/outer/inner"),
        ("/", ""),
        ("", ""),
    ],
)
def test_what_proxies_took_off_the_path_is_known(text: str, prefix: str) -> None:
    for headers in {}, {"forwarded": "for=203.0.113.9"}:
        found = PROXIES.client(Client("127.0.0.1"), {"x-forwarded-prefix": text, **headers})
        assert found.prefix == prefix
    assert PROXIES.client(Client("192.0.2.1"), {"x-forwarded-prefix": text}).prefix == ""


@pytest.mark.parametrize(
    "text",
    [
        "presque", "//evil.example", "/a//b", "/\\evil.example", "https://evil.example", "/a b",
        "/..", "/a/./b", "/a\tb", "/caf\u00e9", "/<b>", "/a?b", "/a#b", "/a;Domain=b",
    ],
)  # fmt: skip
def test_a_prefix_that_leads_elsewhere_is_refused(text: str) -> None:
    with pytest.raises(CallerError, match="X-Forwarded-Prefix should be a path"):
        PROXIES.client(Client("127.0.0.1"), {"x-forwarded-prefix": text})
