"""From a first start on a network to narrower tokens: access tokens on the command line."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from presque.tokens import read
from tests import rig
from tests.doors.tokens import first_token, id_of


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "presque", *words],
        capture_output=True, text=True, check=False, timeout=60, env={**os.environ, **environment},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("--host", "0.0.0.0"), "listen on 0.0.0.0"),
        (("--host", "0.0.0.0", "--workers", "2"), "listen on 0.0.0.0"),
        (("--allow-host", "queue.example"), "answer to the host `queue.example`"),
    ],
)
def test_a_server_on_a_network_wants_a_token_and_says_how_to_make_it(
    tmp_path: Path, flags: tuple[str, ...], why: str
) -> None:
    data = str(tmp_path / "the data")
    refused = run("serve", "--data", data, "--port", "0", "--log-format", "plain", *flags)
    assert refused.returncode == 2
    [said] = [line for line in refused.stderr.splitlines() if line.startswith("presque: ")]
    assert said.startswith(f"presque: will not {why}: there is no access token yet, so anybody who reaches ")
    told = re.search(r"make the first one with `(.*)`, or pass --insecure", said)
    assert told is not None
    made = subprocess.run(shlex.split(told[1]), capture_output=True, text=True, check=True, timeout=60)
    token = made.stdout.strip()
    with rig.server("--data", data, *flags) as server:
        assert server.ask("GET", "/status/").status == 401
        assert server.ask("GET", "/status/", Authorization=f"Bearer {token}").status == 200
        assert "server.insecure" not in server.said()


def test_a_store_in_memory_or_of_ones_own_is_told_apart(store: rig.Store, queue_name: str) -> None:
    flags = ("--host", "0.0.0.0", "--port", "0")
    refused = run("serve", "--memory", *flags)
    assert refused.returncode == 2
    assert (
        "a store in memory has none when it starts, so pass --data DIR instead of --memory" in refused.stderr
    )
    refused = run("serve", "--redis", store.url, "--namespace", queue_name, *flags)
    assert refused.returncode == 2
    assert (
        f"token new admin --allow '*:*' --store-namespace {queue_name} --redis 'unix://{store.socket}?db=0'"
        in refused.stderr
    )
    token = first_token("--redis", store.url, "--store-namespace", queue_name)
    with rig.server("--redis", store.url, "--namespace", queue_name, "--host", "0.0.0.0") as server:
        assert server.ask("GET", "/status/", Authorization=f"Bearer {token}").status == 200
    with store.client() as client:
        client.delete(*client.scan_iter(f"{queue_name}:*"))


def test_who_insists_is_warned_until_there_is_a_token(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    with rig.server("--data", data, "--insecure", "--host", "0.0.0.0") as server:
        assert "server.insecure" in server.said()
        assert server.ask("GET", "/status/").status == 200
        first_token("--data", data)  # while it runs
        rig.eventually(lambda: server.ask("GET", "/status/").status == 401)


def test_tokens_can_be_required_before_there_is_one() -> None:
    with rig.server("--memory", PRESQUE_REQUIRE_TOKENS="true") as server:
        assert server.ask("GET", "/status/").status == 401
        assert server.ask("GET", "/livez").status == 200


def test_tokens_are_listed_and_revoked_in_the_store_whether_a_server_runs_or_not(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    token = first_token("--data", data)
    listed = json.loads(run("token", "list", "--data", data, "--json").stdout)
    assert [(one["id"], one["name"], one["allow"]) for one in listed] == [(id_of(token), "admin", ["*:*"])]
    with rig.server("--data", data) as server:
        bearer = f"Bearer {token}"
        assert server.ask("GET", "/status/", Authorization=bearer).status == 200
        said = run("token", "revoke", id_of(token), "--data", data)
        assert (said.returncode, said.stdout) == (0, f"{id_of(token)} is revoked\n")
        rig.eventually(lambda: server.ask("GET", "/status/", Authorization=bearer).status == 401)
    assert run("token", "revoke", id_of(token), "--data", data).returncode == 5
    assert run("token", "list", "--data", data).stdout == "there are no access tokens\n"


def test_tokens_are_made_listed_and_revoked_over_http(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    admin = first_token("--data", data)
    with rig.server("--data", data) as server:
        me = {"PRESQUE_URL": server.url, "PRESQUE_TOKEN": admin}
        flags = (
            "--allow",
            "push:a*",
            "--deny",
            "push:ab",
            "--expires",
            "1h",
            "--source",
            "::1",
            "--rate",
            "9/2s",
        )
        made = json.loads(run("token", "new", "svc", *flags, "--json", **me).stdout)
        assert (made["allow"], made["deny"], made["sources"]) == (["push:a*"], ["push:ab"], ["::1/128"])
        assert made["rate"] == {"count": 9, "seconds": 2.0}
        table = run("token", "list", **me).stdout
        assert made["id"] in table
        assert made["token"] not in table
        assert run("token", "list", PRESQUE_URL=server.url).returncode == 4
        assert run("token", "revoke", made["id"], **me).returncode == 0
        assert run("token", "revoke", made["id"], **me).returncode == 5

        noted = [json.loads(line) for line in run("audit", "--json", **me).stdout.splitlines()]
        assert [(one["verb"], one["about"]) for one in noted if one["outcome"] == "done"] == [
            ("revoke_token", made["id"]), ("new_token", "svc"),
        ]  # fmt: skip
        assert run("audit", "--limit", "1", **me).stdout.split()[:6] == [
            "at",
            "by",
            "verb",
            "of",
            "from",
            "outcome",
        ]
        assert run("audit", PRESQUE_URL=server.url).returncode == 4

        run("push", "mail", "1", **me)
        link = run("link", "mail", "1", "--allow", "cancel", **me).stdout.strip()
        assert link.startswith(f"{server.url}/j/mail/1?link=")
        assert server.ask("DELETE", link.removeprefix(server.url)).status == 204


def test_a_token_is_narrowed_without_a_server(tmp_path: Path) -> None:
    admin = first_token("--data", str(tmp_path / "data"))
    me = {"PRESQUE_TOKEN": admin, "PRESQUE_URL": "http://127.0.0.1:1"}
    narrower = run(
        "token", "narrow", "--allow", "push:a", "--allow", "read:a", "--expires", "1h", **me
    ).stdout.strip()
    allow, expires = read(narrower).caveats
    assert allow == "allow=push:a,read:a"
    assert expires.startswith("expires=")
    more = run(
        "token", "narrow", "--deny", "read:a", "--source", "10.0.0.0/8", PRESQUE_TOKEN=narrower
    ).stdout.strip()
    assert read(more).caveats == (allow, expires, "deny=read:a", "source=10.0.0.0/8")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("narrow",), "say which token to narrow"),
        (("narrow", "--token", "prq_x", "--deny", "push:a"), "this is not a token of presque"),
        (("narrow", "--token", f"prq_aaaaaaaaaa_{'A' * 43}"), "give what the narrower token should allow"),
        (
            ("narrow", "--token", f"prq_aaaaaaaaaa_{'A' * 43}", "--allow", "write:a"),
            "`write:a` is not a rule",
        ),
        (("new", "x"), "missing option '--allow'"),
        (("new", "x", "--allow", "push:a", "--expires", "soon"), "`--expires` should be"),
        (("new", "x", "--allow", "push:a", "--rate", "often"), "`--rate` should be"),
        (("new", "x", "--allow", "push:a", "--store-namespace", "n"), "--store-namespace goes with"),
        (("mint",), "unknown command `mint`"),
    ],
)
def test_a_mistake_is_a_sentence(words: tuple[str, ...], says: str) -> None:
    said = run("token", *words)
    assert said.returncode == 2
    assert says in said.stderr
    assert "A" * 43 not in said.stderr
