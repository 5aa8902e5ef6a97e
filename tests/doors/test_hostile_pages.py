"""What a page of another site makes a browser ask has no effect, and the page learns nothing.

A real Chromium opens a hostile page that tries every way to send a request that we know of, under every kind
of name and scheme that a server can be reached by. The same page against a site that writes everything down
shows which ways a browser sends at all, and with what.
"""

from __future__ import annotations

import contextlib
import json
import re
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.async_api import BrowserContext, Error, Page, async_playwright

from tests import rig
from tests.dashboard.conftest import FLAGS
from tests.doors.hostile import SCRIPT, Site, site
from tests.doors.tokens import first_token

# Every name is this machine, and no check of the browser's own for addresses stands in front of ours.
OPEN_FLAGS = [
    *FLAGS,
    "--host-resolver-rules=MAP *.example 127.0.0.1",
    "--ignore-certificate-errors",
    "--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests,HttpsUpgrades",
    "--disable-popup-blocking",
    "--autoplay-policy=no-user-gesture-required",
]

GET_WAYS, OTHER_WAYS = (
    re.findall(r'^  (?:"([^"]+)"|(\w+)): \(url\)', part, re.MULTILINE)
    for part in (SCRIPT[SCRIPT.index("const GET_WAYS") : SCRIPT.index("const OTHER_WAYS")],
                 SCRIPT[SCRIPT.index("const OTHER_WAYS") : SCRIPT.index("function speculated")])
)  # fmt: skip
GETS = [quoted or bare for quoted, bare in GET_WAYS]
OTHERS = [quoted or bare for quoted, bare in OTHER_WAYS]

# Where the page of another way than GET sends its request.
PATHS = {
    "web socket": "/ws/{}",
    "fetch delete": "/q/{}",
    "fetch put": "/q/{}",
    "fetch patch": "/p/{}",
    "fetch post": "/control/{}",
    "fetch post with cors": "/q/{}/lease",
    "xhr post": "/q/{}/lease",
}

TARGETS = [
    "http://localhost",
    "http://127.0.0.1",
    "http://queue.example",
    "https://localhost",
    "https://queue.example",
]
SITES = ["evil.example", "evil.queue.example"]  # another site, and another host of the same site


@contextlib.asynccontextmanager
async def browser() -> AsyncIterator[BrowserContext]:
    async with async_playwright() as playwright:
        found = await playwright.chromium.launch(executable_path=rig.require("chromium"), args=OPEN_FLAGS)
        yield await found.new_context(ignore_https_errors=True)
        await found.close()


class World(NamedTuple):
    """A server and a hostile site of one scheme."""

    server: rig.Server
    site: Site


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, World]]:
    """A world for each scheme. The servers answer to queue.example, too, and have no tokens."""
    directory = tmp_path_factory.mktemp("hostile")
    pem = rig.certificate(directory, "any", "DNS:localhost", "DNS:queue.example", "IP:127.0.0.1")
    flags = ("--memory", "--allow-host", "queue.example", "--insecure")
    with (
        rig.server(*flags) as plain,
        rig.tls_server(pem, *flags) as secure,
        site() as evil,
        site(pem) as secure_evil,
    ):
        yield {"http": World(plain, evil), "https": World(secure, secure_evil)}


def called(prefix: str, way: str) -> str:
    return f"{prefix}-{re.sub('[^a-z]+', '-', way)}"


def paths(prefix: str) -> dict[str, str]:
    """Way -> the path that it asks for, each of a queue of its own."""
    found = {way: f"/q/{called(prefix, way)}" for way in GETS}
    found |= {way: PATHS.get(way, "/q/{}").format(called(prefix, way)) for way in OTHERS}
    return found


async def tried(page: Page, target: str, names: dict[str, str]) -> dict[str, str]:
    """What the page could observe of each way, once every way has had its time."""
    found: dict[str, str] = await page.evaluate("([target, names]) => run(target, names)", [target, names])
    return found


def untouched(server: rig.Server, queue: str, **headers: str) -> bool:
    stats = server.ask("GET", f"/stats/{queue}", None, 30, **headers).json
    names = ("ready", "leased", "scheduled", "dead", "done", "processed", "failed", "status")
    return [stats[name] for name in names] == [1, 0, 0, 0, 0, 0, 0, 1]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("host", SITES)
@pytest.mark.parametrize("target", TARGETS)
async def test_no_way_of_a_hostile_page_has_an_effect(
    worlds: dict[str, World], target: str, host: str, queue_name: str
) -> None:
    scheme = target.partition(":")[0]
    server, evil = worlds[scheme]
    names = paths(queue_name)
    queues = {way: called(queue_name, way) for way in names}
    for queue in queues.values():
        assert server.ask("POST", f"/q/{queue}", '"precious"').status == 201

    async with browser() as context:
        page = await context.new_page()
        await page.goto(f"{scheme}://{host}:{evil.server_port}/page")
        observed = await tried(page, f"{target}:{server.port}", names)

    assert "precious" not in json.dumps(observed)
    changed = [way for way, queue in queues.items() if not untouched(server, queue)]
    assert changed == [], f"{len(changed)} of {len(queues)} ways had an effect"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("host", SITES)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_not_even_in_the_browser_of_somebody_who_is_logged_in(
    scheme: str, host: str, queue_name: str, tmp_path: Path
) -> None:
    """A host of the same site is sent the cookie of the session, but it is good only for our own pages."""
    data, pem = (
        str(tmp_path / "presque"),
        rig.certificate(tmp_path, "any", "DNS:queue.example", "IP:127.0.0.1"),
    )
    token = first_token("--data", data)
    tls = ("--tls-cert", str(pem)) if scheme == "https" else ()
    names = paths(queue_name)
    queues = {way: called(queue_name, way) for way in names}
    with (
        rig.server("--data", data, "--allow-host", "queue.example", *tls) as server,
        site(pem if tls else None) as evil,
    ):
        if tls:
            server.context = ssl.create_default_context(cafile=str(pem))
        known = {"Authorization": f"Bearer {token}"}
        for queue in queues.values():
            answer = server.ask("POST", f"/q/{queue}", '"precious"', 30, **known)
            assert answer.status == 201
        target = f"{scheme}://queue.example:{server.port}"
        async with browser() as context:
            page = await context.new_page()
            await page.goto(f"{target}/livez")
            logged_in = await page.evaluate(LOG_IN, token)
            assert logged_in == [200, 200]
            await page.goto(f"{scheme}://{host}:{evil.server_port}/page")
            observed = await tried(page, target, names)
        assert "precious" not in json.dumps(observed)
        assert [way for way, queue in queues.items() if not untouched(server, queue, **known)] == []


LOG_IN = """async (token) => {
    const asked = await fetch("/login", {method: "POST", body: JSON.stringify({token})});
    return [asked.status, (await fetch("/stats/")).status];
}"""


# A page looks at two addresses that are answered differently.
LOOKS = {
    "a job that is there, or not": ("/j/{}/1", "/j/{}/2"),
    "a large answer, or a small one": ("/status/{}?with_desc=1", "/status/{}"),
    "a queue that is there, or not": ("/j/{}/1/explain", "/j/never-{}/1/explain"),
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("target", ["http://queue.example", "https://queue.example", "http://localhost"])
async def test_a_hostile_page_cannot_tell_what_there_is(
    worlds: dict[str, World], target: str, look: str, queue_name: str
) -> None:
    scheme = target.partition(":")[0]
    server, evil = worlds[scheme]
    assert server.ask("POST", f"/q/{queue_name}", f'"{"precious" * 5000}"').status == 201
    answers = [server.ask("GET", path.format(queue_name)) for path in LOOKS[look]]
    assert (answers[0].status, len(answers[0].body)) != (answers[1].status, len(answers[1].body))

    different = {*GETS, "timings"}
    async with browser() as context:
        for _ in range(3):  # what differs by chance, since the machine is busy, does not differ each time
            observed = []
            for path in LOOKS[look]:
                page = await context.new_page()
                await page.goto(f"{scheme}://evil.example:{evil.server_port}/page")
                names = dict.fromkeys(sorted(different - {"timings"}), path.format(queue_name))
                observed.append(await tried(page, f"{target}:{server.port}", names))
                await page.close()
            assert "precious" not in json.dumps(observed)
            different = {way for way in different | {"timings"} if observed[0][way] != observed[1][way]}
            if not different:
                break
    assert different == set(), {way: [one[way] for one in observed] for way in different}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_page_whose_name_became_our_address_has_no_effect(
    worlds: dict[str, World], scheme: str, queue_name: str
) -> None:
    """DNS rebinding: to the browser the page and presque are one site."""
    server, _ = worlds[scheme]
    names = paths(queue_name)
    queues = {way: called(queue_name, way) for way in names}
    for queue in queues.values():
        assert server.ask("POST", f"/q/{queue}", '"precious"').status == 201
    base = f"{scheme}://rebound.example:{server.port}"
    async with browser() as context:
        page = await context.new_page()
        script = SCRIPT.replace("</script>", r"<\/script>")
        body = f"<!doctype html><body><script>{script}</script>"
        await page.route(f"{base}/page", lambda route: route.fulfill(body=body, content_type="text/html"))
        await page.goto(f"{base}/page")
        observed = await tried(page, base, names)
    assert "precious" not in json.dumps(observed)
    assert [way for way, queue in queues.items() if not untouched(server, queue)] == []


@pytest.mark.timeout(120)
async def test_a_browser_does_send_what_the_page_tries(queue_name: str) -> None:
    """Without this the tests above could pass because nothing was ever sent."""
    names = paths(queue_name)
    with site() as target, site() as evil:
        async with browser() as context:
            page = await context.new_page()
            await page.goto(f"http://evil.example:{evil.server_port}/page")
            await tried(page, f"http://queue.example:{target.server_port}", names)
        sent = {way for way, path in names.items() if any(asked == path for _, asked, _ in target.asked)}
        silent = {
            way
            for way, path in names.items()
            for method, asked, headers in target.asked
            if asked == path and method == "GET" and not {"origin", "sec-fetch-site"} & headers.keys()
        }
        assert all(headers["user-agent"].startswith("Mozilla/") for _, _, headers in target.asked)
    assert len(sent) >= 50, sorted(names.keys() - sent)
    assert len(silent) >= 28, sorted(silent)


ALLOWED = """async ([target, queue]) => {
    const told = [];
    const ask = async (...what) => {
        const answer = await fetch(...what);
        const [id, location] = ["presque-job-id", "location"].map((name) => answer.headers.get(name));
        told.push([answer.status, id, location, await answer.text()]);
    };
    await ask(`${target}/q/${queue}`, {method: "POST", body: '"mine"', headers: {
        "Content-Type": "application/json", "Idempotency-Key": "k", "Authorization": "Bearer t",
        "X-presque-workerid": "w"}});
    await ask(`${target}/q/${queue}`);
    await ask(`${target}/q/${queue}`, {method: "DELETE"});
    await ask(`${target}/p/${queue}`, {method: "PATCH", body: '{"keep":5}'});
    await ask(`${target}/j/${queue}/9`);
    await ask(`${target}/q/${queue}`, {method: "POST", body: "x".repeat(1100000)});
    return told;
}"""


@pytest.mark.parametrize("origin", ["listed.example", "other.example"])
@pytest.mark.parametrize("host", ["localhost", "queue.example"])
async def test_a_page_of_a_listed_origin_may_do_everything_and_any_other_nothing(
    origin: str, host: str, queue_name: str
) -> None:
    with site() as pages:
        listed = f"http://listed.example:{pages.server_port}"
        flags = ("--memory", "--allow-host", "queue.example", "--insecure")
        with rig.server(*flags, PRESQUE_ORIGINS=listed) as server:
            async with browser() as context:
                page = await context.new_page()
                await page.goto(f"http://{origin}:{pages.server_port}/page")
                asking = page.evaluate(ALLOWED, [f"http://{host}:{server.port}", queue_name])
                if origin == "other.example":
                    with pytest.raises(Error, match="Failed to fetch"):
                        await asking
                    assert server.ask("GET", "/status/").json["queues"] == []
                    return
                told = await asking
    assert [status for status, *_ in told] == [201, 200, 204, 200, 404, 413]
    assert told[0][2] == f"/j/{queue_name}/1"
    assert told[1][1::2] == ["1", '"mine"']
