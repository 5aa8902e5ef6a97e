"""What a page of another site makes a browser ask has no effect, and the page learns nothing.

A real Chromium opens a hostile page that tries every way to send a request that we know of, under every kind
of name and scheme that a server can be reached by. The same page against a site that writes everything down
shows which ways a browser sends at all, and with what.

A page takes seconds to see that nothing more comes of a way, so the pages of a test stand open side by side.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Error, Page, async_playwright

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

NewPage = Callable[[], Awaitable[Page]]


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        found = await playwright.chromium.launch(executable_path=rig.require("chromium"), args=OPEN_FLAGS)
        yield found
        await found.close()


@pytest_asyncio.fixture(loop_scope="module")
async def new_page(browser: Browser) -> AsyncIterator[NewPage]:
    """Opens pages, each of a visitor of its own: no cookie, cache or service worker is shared."""
    contexts = []

    async def new_page() -> Page:
        contexts.append(await browser.new_context(ignore_https_errors=True))
        return await contexts[-1].new_page()

    yield new_page
    for context in contexts:
        await context.close()


class World(NamedTuple):
    """A server and a hostile site of one scheme."""

    server: rig.Server
    site: Site
    token: str = ""

    @property
    def known(self) -> dict[str, str]:
        """The headers of somebody who may do everything."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


@pytest.fixture(scope="module")
def any_pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for every name that the servers and sites have here."""
    directory = tmp_path_factory.mktemp("hostile")
    return rig.certificate(directory, "any", "DNS:localhost", "DNS:queue.example", "IP:127.0.0.1")


@pytest.fixture(scope="module")
def worlds(any_pem: Path) -> Iterator[dict[str, World]]:
    """A world for each scheme. The servers answer to queue.example, too, and have no tokens."""
    flags = ("--memory", "--allow-host", "queue.example", "--insecure")
    with (
        rig.server(*flags) as plain,
        rig.tls_server(any_pem, *flags) as secure,
        site() as evil,
        site(any_pem) as secure_evil,
    ):
        yield {"http": World(plain, evil), "https": World(secure, secure_evil)}


@pytest.fixture(params=["http", "https"])
def guarded_world(request: pytest.FixtureRequest, any_pem: Path, tmp_path: Path) -> Iterator[World]:
    """A world whose server wants tokens."""
    data = str(tmp_path / "presque")
    token = first_token("--data", data)
    flags = ("--data", data, "--allow-host", "queue.example")
    if request.param == "http":
        with rig.server(*flags) as server, site() as evil:
            yield World(server, evil, token)
    else:
        with rig.tls_server(any_pem, *flags) as server, site(any_pem) as evil:
            yield World(server, evil, token)


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


def stocked(world: World, prefix: str) -> dict[str, str]:
    """Way -> its queue, with a job in each."""
    queues = {way: called(prefix, way) for way in paths(prefix)}
    for queue in queues.values():
        assert world.server.ask("POST", f"/q/{queue}", '"precious"', 30, **world.known).status == 201
    return queues


def touched(world: World, queues: dict[str, str]) -> list[str]:
    """The ways whose queue is not as `stocked` left it."""
    names = ("ready", "leased", "scheduled", "dead", "done", "processed", "failed", "status")
    found = []
    for way, queue in queues.items():
        stats = world.server.ask("GET", f"/stats/{queue}", None, 30, **world.known).json
        if [stats[name] for name in names] != [1, 0, 0, 0, 0, 0, 0, 1]:
            found.append(way)
    return found


async def attacked(world: World, page: Page, host: str, target: str, prefix: str) -> list[str]:
    """Let a page of this host try every way. Returns the ways that had an effect."""
    queues = stocked(world, prefix)
    scheme = target.partition(":")[0]
    await page.goto(f"{scheme}://{host}:{world.site.server_port}/page")
    observed = await tried(page, f"{target}:{world.server.port}", paths(prefix))
    assert "precious" not in json.dumps(observed)
    return touched(world, queues)


@pytest.mark.parametrize("target", TARGETS)
async def test_no_way_of_a_hostile_page_has_an_effect(
    worlds: dict[str, World], new_page: NewPage, target: str, queue_name: str
) -> None:
    world = worlds[target.partition(":")[0]]

    async def attack(host: str) -> list[str]:
        return await attacked(world, await new_page(), host, target, f"{queue_name}-{SITES.index(host)}")

    had_effect = await asyncio.gather(*map(attack, SITES))
    assert dict(zip(SITES, had_effect, strict=True)) == {host: [] for host in SITES}


async def test_not_even_in_the_browser_of_somebody_who_is_logged_in(
    guarded_world: World, new_page: NewPage, queue_name: str
) -> None:
    """A host of the same site is sent the cookie of the session, but it is good only for our own pages."""
    scheme = guarded_world.server.url.partition(":")[0]
    target = f"{scheme}://queue.example"

    async def attack(host: str) -> list[str]:
        page = await new_page()
        await page.goto(f"{target}:{guarded_world.server.port}/livez")
        assert await page.evaluate(LOG_IN, guarded_world.token) == [200, 200]
        return await attacked(guarded_world, page, host, target, f"{queue_name}-{SITES.index(host)}")

    had_effect = await asyncio.gather(*map(attack, SITES))
    assert dict(zip(SITES, had_effect, strict=True)) == {host: [] for host in SITES}


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


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("target", ["http://queue.example", "https://queue.example", "http://localhost"])
async def test_a_hostile_page_cannot_tell_what_there_is(
    worlds: dict[str, World], new_page: NewPage, target: str, look: str, queue_name: str
) -> None:
    scheme = target.partition(":")[0]
    server, evil, _ = worlds[scheme]
    assert server.ask("POST", f"/q/{queue_name}", f'"{"precious" * 5000}"').status == 201
    answers = [server.ask("GET", path.format(queue_name)) for path in LOOKS[look]]
    assert (answers[0].status, len(answers[0].body)) != (answers[1].status, len(answers[1].body))

    async def seen(path: str, ways: list[str]) -> dict[str, str]:
        page = await new_page()
        await page.goto(f"{scheme}://evil.example:{evil.server_port}/page")
        address = path.format(queue_name)
        found = await tried(page, f"{target}:{server.port}", dict.fromkeys(ways, address))
        await page.close()
        assert "precious" not in json.dumps(found)
        return {way: what.replace(address, "…") for way, what in found.items()}

    # What differs by chance, since the machine is busy, is the same in the end: a way that tells is one that
    # never saw of one address what it saw of the other, whichever was asked first. So those that do not tell
    # need not ask again, unless it is the timings of all that seem to tell.
    one, other = LOOKS[look]
    saw: dict[str, dict[str, set[str]]] = {one: defaultdict(set), other: defaultdict(set)}
    ways = GETS
    for turn in range(9):
        paths_now = (one, other) if turn % 2 == 0 else (other, one)
        both = await asyncio.gather(*(seen(path, ways) for path in paths_now))
        for path, found in zip(paths_now, both, strict=True):
            for way, what in found.items():
                saw[path][way].add(what)
        tells = {
            way: (saw[one][way], saw[other][way]) for way in saw[one] if not saw[one][way] & saw[other][way]
        }
        if not tells:
            break
        ways = GETS if "timings" in tells else list(tells)
    assert tells == {}


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_page_whose_name_became_our_address_has_no_effect(
    worlds: dict[str, World], new_page: NewPage, scheme: str, queue_name: str
) -> None:
    """DNS rebinding: to the browser the page and presque are one site."""
    world = worlds[scheme]
    queues = stocked(world, queue_name)
    base = f"{scheme}://rebound.example:{world.server.port}"
    page = await new_page()
    script = SCRIPT.replace("</script>", r"<\/script>")
    body = f"<!doctype html><body><script>{script}</script>"
    await page.route(f"{base}/page", lambda route: route.fulfill(body=body, content_type="text/html"))
    await page.goto(f"{base}/page")
    observed = await tried(page, base, paths(queue_name))
    assert "precious" not in json.dumps(observed)
    assert touched(world, queues) == []


async def test_a_browser_does_send_what_the_page_tries(new_page: NewPage, queue_name: str) -> None:
    """Without this the tests above could pass because nothing was ever sent."""
    names = paths(queue_name)
    with site() as target, site() as evil:
        page = await new_page()
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


@pytest.mark.parametrize("host", ["localhost", "queue.example"])
async def test_a_page_of_a_listed_origin_may_do_everything_and_any_other_nothing(
    new_page: NewPage, host: str, queue_name: str
) -> None:
    with site() as pages:
        listed = f"http://listed.example:{pages.server_port}"
        flags = ("--memory", "--allow-host", "queue.example", "--insecure")
        with rig.server(*flags, PRESQUE_ORIGINS=listed) as server:
            target = f"http://{host}:{server.port}"
            other = await new_page()
            await other.goto(f"http://other.example:{pages.server_port}/page")
            with pytest.raises(Error, match="Failed to fetch"):
                await other.evaluate(ALLOWED, [target, queue_name])
            assert server.ask("GET", "/status/").json["queues"] == []
            page = await new_page()
            await page.goto(f"{listed}/page")
            told = await page.evaluate(ALLOWED, [target, queue_name])
    assert [status for status, *_ in told] == [201, 200, 204, 200, 404, 413]
    assert told[0][2] == f"/j/{queue_name}/1"
    assert told[1][1::2] == ["1", '"mine"']
