"""Settings: what is read from where, and the exact sentence for everything that is refused."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from presque import quantities
from presque.config import settings as config
from presque.config import values as setting_values
from presque.config.loading import SECTIONS, Loaded, load
from presque.config.settings import LimitSettings, RedisSettings, Settings, TlsSettings, XmppSettings
from presque.errors import NoToken, SetupError

NOBODY = 65534


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(
    yaml: str | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
    config: str | None = None,
) -> Loaded:
    """Load settings from the three places that a test fills; the file is ./presque.yaml."""
    if yaml is not None:
        Path("presque.yaml").write_text(yaml)
        Path("presque.yaml").chmod(0o600)
    return load(flags, environ or {}, config=config, files=[Path("presque.yaml")])


def refusal(*args: object, **kwargs: object) -> str:
    with pytest.raises(SetupError) as caught:
        read(*args, **kwargs)  # type: ignore[arg-type]
    return str(caught.value)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"test_clock": True}, "`memory`"),
        ({"test_clock": True, "redis.url": "redis://localhost"}, "`memory`"),
        ({"test_clock": True, "memory": True, "workers": "2"}, "contradict"),
    ],
)
def test_a_clock_that_moves_is_for_one_process_that_keeps_nothing(
    flags: dict[str, object], said: str
) -> None:
    with pytest.raises(SetupError, match=said):
        load(flags, {}, files=())


def test_nothing_said_means_the_defaults() -> None:
    loaded = read()
    assert loaded.settings == Settings()
    assert {one.origin.short for one in loaded.entries()} == {"default"}


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Settings().port = 1  # type: ignore[misc]


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default() -> None:
    loaded = read(
        "port: 1\nworkers: 2\nnamespace: file\n",
        {"PRESQUE_WORKERS": "3", "PRESQUE_NAMESPACE": "env"},
        {"namespace": "flag"},
    )
    settings = loaded.settings
    assert (settings.port, settings.workers, settings.namespace, settings.host) == (1, 3, "flag", "127.0.0.1")
    shorts = {one.setting: one.origin.short for one in loaded.entries()}
    assert shorts["port"] == "presque.yaml:1"
    assert shorts["workers"] == "PRESQUE_WORKERS"
    assert shorts["namespace"] == "--namespace"
    assert shorts["host"] == "default"


def test_every_setting_can_be_said_in_yaml() -> None:
    settings = read(
        """
host: 0.0.0.0
port: 0
workers: 4
namespace: shop.1
insecure: true
hosts: [Queue.example, "10.0.0.1"]
origins: [https://UI.example, "http://[::1]:8080"]
max_body: 2MiB
fsync: everysec
data: store
maxmemory: 1GiB
min_free_disk: 1GiB
valkey_bin: /opt/valkey-server
log_format: json
log_level: debug
""",
        config="presque.yaml",
    ).settings
    assert settings == Settings(
        host="0.0.0.0",
        port=0,
        workers=4,
        namespace="shop.1",
        insecure=True,
        hosts=("queue.example", "10.0.0.1"),
        origins=("https://ui.example", "http://[::1]:8080"),
        max_body=2 * 1024 * 1024,
        fsync="everysec",
        data=Path.cwd() / "store",
        maxmemory=1024**3,
        min_free_disk=1024**3,
        valkey_bin=Path("/opt/valkey-server"),
        log_format="json",
        log_level="debug",
    )


def test_every_setting_can_be_said_in_the_environment() -> None:
    settings = read(
        environ={
            "PRESQUE_HOST": "[::1]",
            "PRESQUE_PORT": "6000",
            "PRESQUE_INSECURE": "Yes",
            "PRESQUE_MEMORY": "0",
            "PRESQUE_HOSTS": "a.example, b.example,a.example",
            "PRESQUE_MAX_BODY": "512kib",
            "PRESQUE_LOG_FORMAT": "plain",
            "PRESQUE_REDIS__HOST": "valkey",
            "PRESQUE_REDIS__PORT": "7000",
            "PRESQUE_REDIS__DB": "3",
            "PRESQUE_REDIS__TLS": "on",
            "PRESQUE_REDIS__USERNAME": "worker",
            "PRESQUE_REDIS__PASSWORD": "secret",
        }
    ).settings
    assert settings == Settings(
        host="::1",
        port=6000,
        insecure=True,
        hosts=("a.example", "b.example"),
        max_body=512 * 1024,
        log_format="plain",
        redis=RedisSettings(host="valkey", port=7000, db=3, tls=True, username="worker", password="secret"),
    )


def test_tls_can_be_said_in_yaml_in_the_environment_and_by_flags() -> None:
    here = Path.cwd()
    clients = {"CN=mailer": "t1", "DNS=b.example": "t2"}
    environ = {"PRESQUE_TLS__CERT": "/c", "PRESQUE_TLS__CLIENT_CA": "/a"}
    environ["PRESQUE_TLS__CLIENTS"] = '{"CN=mailer": "t1", "DNS=b.example": "t2"}'
    expected = TlsSettings(cert=Path("/c"), client_ca=Path("/a"), clients=clients)
    assert read(environ=environ).settings.tls == expected
    text = 'tls:\n  cert: c\n  key: /k\n  client_ca: a\n  clients: {CN=mailer: t1, "DNS=b.example": t2}'
    expected = TlsSettings(cert=here / "c", key=Path("/k"), client_ca=here / "a", clients=clients)
    assert read(text).settings.tls == expected
    loaded = read("tls: {cert: /c, key: /k}", flags={"tls.cert": "/d"})
    assert loaded.settings.tls == TlsSettings(cert=Path("/d"), key=Path("/k"))
    assert {one.setting: one.origin.short for one in loaded.entries()}["tls.cert"] == "--tls-cert"


@pytest.mark.parametrize(
    ("yaml", "sentence"),
    [
        ("tls: cert.pem", "`tls` in presque.yaml:1 should hold cert and key"),
        ("tls: {}", "`tls` in presque.yaml:1 is empty: give it cert and key"),
        (
            "tls: {key: /k}",
            (
                "`tls.key` in presque.yaml:1 is set, but `tls.cert` is not: "
                "there is no certificate that the key belongs to"
            ),
        ),
        (
            "tls: {cert: /c, clients: {CN=a: t}}",
            (
                "`tls.clients` in presque.yaml:1 is set, but `tls.client_ca` is not: "
                "nothing says whose certificates to believe"
            ),
        ),
        (
            "tls: {cert: /c, client_ca: /a, clients: {mailer: t}}",
            (
                "`tls.clients` in presque.yaml:1 should be names that begin with "
                "CN=, DNS=, URI=, email= or IP=, not `mailer`"
            ),
        ),
        (
            "tls: {cert: /c, client_ca: /a, clients: {CN=a: 1}}",
            "`tls.clients` in presque.yaml:1 should be the id of a token for `CN=a`, not `1`",
        ),
        (
            f"tls: {{cert: /c, client_ca: /a, clients: {{CN=a: prq_aaaaaaaaaa_{'B' * 43}}}}}",
            (
                "`tls.clients` in presque.yaml:1 should be the id of a token for `CN=a`, as `presque token "
                "list` shows it, and not the token, which is not repeated here"
            ),
        ),
    ],
)
def test_a_mistake_about_tls_is_named(yaml: str, sentence: str) -> None:
    assert refusal(yaml) == sentence


@pytest.mark.parametrize(
    ("yaml", "sentence"),
    [
        (
            "xmpp: {secret: s}",
            (
                "`xmpp.secret` in presque.yaml:1 is set, but `xmpp.jid` is not: it says which domain "
                "presque has at the XMPP server"
            ),
        ),
        (
            "xmpp: {jid: p.example}",
            (
                "`xmpp.jid` in presque.yaml:1 is set, but `xmpp.secret` is not: it is the "
                "`component_secret` that the XMPP server has for presque; a file for it is "
                "`xmpp.secret_file`"
            ),
        ),
        (
            "xmpp: {jid: a@p.example, secret: s}",
            ("`xmpp.jid` in presque.yaml:1 should be a domain such as presque.example, not `a@p.example`"),
        ),
        (
            "xmpp: {jid: p.example, secret: s, server: 'x:y'}",
            ("`xmpp.server` in presque.yaml:1 should be a host and a port such as 127.0.0.1:5347, not `x:y`"),
        ),
        (
            "xmpp: {jid: p.example, secret: s, server: 'jabber.example:5347'}",
            (
                "`xmpp.server` in presque.yaml:1 is another machine, and what a component says to its "
                "server is not encrypted, the secret and the jobs included: use a tunnel to it and "
                "name the near end, or set `xmpp.insecure` if the network itself keeps strangers out"
            ),
        ),
        (
            "xmpp: {jid: p.example, secret: s, allow: {ana@a.example/desk: ['*:*']}}",
            (
                "`xmpp.allow` in presque.yaml:1 should be accounts such as ana@example.org, or "
                "domains, without a resource, not `ana@a.example/desk`"
            ),
        ),
        (
            "xmpp: {jid: p.example, secret: s, allow: {ana@a.example: ['shove:*']}}",
            (
                "`xmpp.allow` in presque.yaml:1 is wrong about `ana@a.example`: `shove:*` is not a "
                "rule: use `class:pattern`, such as `push:mail*`, with one of the classes push, fetch, "
                "lease, read, control, admin or * for all of them"
            ),
        ),
        (
            "xmpp: {jid: p.example, secret: s, allow: {ana@a.example: 1}}",
            (
                "`xmpp.allow` in presque.yaml:1 should be a list of rules for `ana@a.example`, such as "
                "[push:mail*], not `1`"
            ),
        ),
        (
            "xmpp: {jid: p.example, secret: s, deny: {ana@a.example: ['*:*']}}",
            ("`xmpp.deny` in presque.yaml:1 names `ana@a.example`, which `xmpp.allow` does not"),
        ),
        (
            "xmpp: {jid: p.example, secret: s, secret_file: /s}",
            (
                "`xmpp.secret` in presque.yaml:1 and `xmpp.secret_file` in presque.yaml:1 contradict "
                "each other: there is one secret"
            ),
        ),
        (
            "xmpp: 5",
            ("`xmpp` in presque.yaml:1 should hold jid, secret and who may ask"),
        ),
    ],
)
def test_a_mistake_about_xmpp_is_named(yaml: str, sentence: str) -> None:
    assert refusal(yaml) == sentence


def test_the_accounts_of_xmpp_are_read_in_lower_case_and_its_secret_is_not_shown() -> None:
    loaded = read(
        "xmpp: {jid: P.Example, secret: hush, allow: {Ana@A.example: 'push:*', b.example: ['*:q*']}}"
    )
    found = loaded.settings.xmpp
    assert found is not None
    assert (found.jid, found.allow) == ("p.example", {"ana@a.example": ("push:*",), "b.example": ("*:q*",)})
    assert "hush" not in repr(loaded.settings)
    assert {one.setting: one.value for one in loaded.entries()}["xmpp.secret"] == "***"


def test_the_classic_yaml_names_a_store() -> None:
    settings = read("redis:\n  host: 10.0.0.7\n  port: 6380\n").settings
    assert settings.redis == RedisSettings(host="10.0.0.7", port=6380)
    assert settings.redis is not None
    assert settings.redis.address == "redis://10.0.0.7:6380/0"


def test_an_empty_variable_or_yaml_value_says_nothing() -> None:
    assert (
        read("port:\ndata: null\nredis:\n", {"PRESQUE_WORKERS": "", "PRESQUE_REDIS": ""}).settings
        == Settings()
    )


def test_an_empty_file_is_fine() -> None:
    assert read("# nothing yet\n").settings == Settings()


def test_the_variables_of_the_client_are_no_settings() -> None:
    assert (
        read(environ={"PRESQUE_URL": "http://x", "PRESQUE_TOKEN": "t", "HOME": "/x"}).settings == Settings()
    )


@pytest.mark.parametrize(
    "environ",
    [
        {"PRESQUE_PORT": "tcp://10.0.0.1:5000"},
        {
            "PRESQUE_SERVICE_HOST": "10.0.0.1",
            "PRESQUE_SERVICE_PORT": "5000",
            "PRESQUE_SERVICE_PORT_HTTP": "5000",
        },
        {"PRESQUE_PORT_5000_TCP": "tcp://10.0.0.1:5000", "PRESQUE_PORT_5000_TCP_PROTO": "tcp"},
        {"PRESQUE_REDIS_PORT": "tcp://10.0.0.2:6379", "PRESQUE_REDIS_SERVICE_HOST": "10.0.0.2"},
        {"PRESQUE_REDIS_MASTER_PORT_6379_TCP_ADDR": "10.0.0.2"},
    ],
)
def test_what_kubernetes_says_about_a_service_called_presque_is_left_alone(environ: dict[str, str]) -> None:
    assert read(environ=environ).settings == Settings()


def test_a_file_named_by_the_flag_beats_the_one_named_by_the_environment(tmp_path: Path) -> None:
    for name, port in (("presque.yaml", 1), ("env.yaml", 2), ("flag.yaml", 3)):
        Path(name).write_text(f"port: {port}\n")
    files = [Path("presque.yaml")]
    assert load(environ={}, files=files).settings.port == 1
    assert load(environ={"PRESQUE_CONFIG": "env.yaml"}, files=files).settings.port == 2
    assert load(environ={"PRESQUE_CONFIG": "env.yaml"}, config="flag.yaml", files=files).settings.port == 3


def test_no_program_is_taken_from_a_file_that_was_only_found_in_the_working_directory() -> None:
    assert refusal("port: 1\nvalkey_bin: ./fake.sh") == (
        "`valkey_bin` in presque.yaml:2 names a program to run, which a file that was merely found in the "
        "working directory may not do; pass --valkey-bin, set PRESQUE_VALKEY_BIN, or name the file with "
        "--config"
    )
    assert read("valkey_bin: ./fake.sh", config="presque.yaml").settings.valkey_bin == Path.cwd() / "fake.sh"
    assert read("valkey_bin:\nport: 1").settings.port == 1


@pytest.mark.parametrize("mode", [0o602, 0o666, 0o646, 0o622])
def test_a_file_that_others_may_write_is_not_read_from_the_working_directory(mode: int) -> None:
    Path("presque.yaml").write_text("port: 1\n")
    Path("presque.yaml").chmod(mode)
    if mode == 0o622:
        os.chown("presque.yaml", -1, NOBODY) if os.geteuid() == 0 else pytest.skip("only root may chgrp so")

    with pytest.raises(SetupError) as refused:
        load(environ={}, files=[Path("presque.yaml")])
    assert str(refused.value) == (
        "others may write presque.yaml in the working directory, so it is not read; "
        "`chmod go-w presque.yaml`, or name it with --config if you trust it"
    )
    assert load(environ={}, config="presque.yaml").settings.port == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("as_link", [False, True])
def test_a_file_of_another_user_is_not_read_from_the_working_directory(as_link: bool) -> None:
    Path("presque.yaml").write_text("port: 1\n")
    Path("presque.yaml").chmod(0o644)
    if as_link:
        Path("presque.yaml").rename("mine.yaml")
        Path("presque.yaml").symlink_to("mine.yaml")
    os.chown("presque.yaml", NOBODY, NOBODY, follow_symlinks=False)

    with pytest.raises(SetupError) as refused:
        load(environ={}, files=[Path("presque.yaml")])
    assert str(refused.value) == (
        "presque.yaml in the working directory belongs to another user, so it is not read; "
        "name it with --config if you trust it, or remove it"
    )
    assert load(environ={}, config="presque.yaml").settings.port == 1
    assert load(environ={}, files=[Path("presque.yaml").absolute()]).settings.port == 1  # as one in /etc is


@pytest.mark.parametrize("mode", [0o777, 0o757, 0o775])
def test_a_file_that_others_may_replace_is_not_read_from_the_working_directory(
    mode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "shared"
    here.mkdir()
    monkeypatch.chdir(here)
    Path("presque.yaml").write_text("port: 1\n")
    Path("presque.yaml").chmod(0o644)
    if mode == 0o775:
        os.chown(here, -1, NOBODY) if os.geteuid() == 0 else pytest.skip("only root may chgrp so")
    here.chmod(mode)
    with pytest.raises(SetupError) as refused:
        load(environ={}, files=[Path("presque.yaml")])
    assert str(refused.value) == (
        f"others may write the working directory {here}, and so replace presque.yaml, so it is not read; "
        "name it with --config if you trust it"
    )
    assert load(environ={}, config="presque.yaml").settings.port == 1
    here.chmod(mode | 0o1000)  # as /tmp is: there nobody replaces a file of ours
    assert load(environ={}, files=[Path("presque.yaml")]).settings.port == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_file_in_the_directory_of_another_user_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "theirs"
    here.mkdir()
    monkeypatch.chdir(here)
    Path("presque.yaml").write_text("port: 1\n")
    os.chown(here, NOBODY, NOBODY)
    with pytest.raises(SetupError, match=r"^others may write the working directory "):
        load(environ={}, files=[Path("presque.yaml")])


def test_a_file_of_the_system_that_everybody_may_write_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "etc.yaml"
    path.write_text("port: 1\n")
    path.chmod(0o646)
    with pytest.raises(SetupError) as refused:
        load(environ={}, files=[path])
    assert str(refused.value) == f"others may write {path}, so it is not read; `chmod o-w {path}`"
    path.chmod(0o644)
    assert load(environ={}, files=[path]).settings.port == 1


@pytest.mark.parametrize("text", ["[" * 3000 + "]" * 3000, "{a: " * 3000 + "}" * 3000, "- " * 3000])
def test_yaml_that_is_nested_too_deeply_is_refused_with_a_sentence(text: str) -> None:
    for whole in (text, f"hosts: {text}"):
        said = refusal(whole)
        assert said.startswith(("presque.yaml is nested too deeply", "presque.yaml:1 is not valid")), said


def test_what_was_loaded_knows_the_file() -> None:
    assert read().file is None
    assert read("port: 1").file == Path("presque.yaml")


def test_a_file_that_was_asked_for_must_exist() -> None:
    with pytest.raises(SetupError, match=r"^there is no settings file `a.yaml`, which --config asks for$"):
        load(environ={}, config="a.yaml")
    with pytest.raises(
        SetupError, match=r"^there is no settings file `b.yaml`, which PRESQUE_CONFIG asks for$"
    ):
        load(environ={"PRESQUE_CONFIG": "b.yaml"})


def test_a_relative_path_in_a_file_is_meant_from_the_directory_of_the_file(tmp_path: Path) -> None:
    inner = tmp_path / "etc"
    inner.mkdir()
    (inner / "p.yaml").write_text("data: store\n")
    assert load(environ={}, config="etc/p.yaml").settings.data == inner / "store"
    assert load({"data": "store"}, {}, config="etc/p.yaml").settings.data == tmp_path / "store"


def test_yaml_is_imported_only_for_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert read().settings == Settings()
    with pytest.raises(ImportError):
        read("port: 1\n")


@pytest.mark.parametrize(
    ("yaml", "sentence"),
    [
        ("prot: 1", "unknown setting `prot` in presque.yaml:1, did you mean `port`?"),
        ("port: 1\nworker: 2", "unknown setting `worker` in presque.yaml:2, did you mean `workers`?"),
        ("max-body: 1", "unknown setting `max-body` in presque.yaml:1, did you mean `max_body`?"),
        ("redis:\n  hots: x", "unknown setting `redis.hots` in presque.yaml:2, did you mean `redis.host`?"),
        ("redis.host: x", "unknown setting `redis.host` in presque.yaml:1, did you mean `redis`?"),
        ("? [1, 2]\n: 3", "unknown setting `["),
        ("port: 1\nhost: ::1\nport: 2", "`port` is given twice in presque.yaml, in lines 1 and 3"),
        (
            "port: abc",
            "`port` in presque.yaml:1 should be a whole number from 0 to 65535, not `abc`",
        ),
        ("port: 65536", "`port` in presque.yaml:1 should be a whole number from 0 to 65535, not `65536`"),
        ("port: -1", "`port` in presque.yaml:1 should be a whole number from 0 to 65535, not `-1`"),
        ("port: 5000.5", "`port` in presque.yaml:1 should be a whole number from 0 to 65535, not `5000.5`"),
        ("port: true", "`port` in presque.yaml:1 should be a whole number from 0 to 65535, not `true`"),
        ("port: [1]", "`port` in presque.yaml:1 should be a whole number from 0 to 65535, not a list"),
        ("port: {a: 1}", "`port` in presque.yaml:1 should be a whole number from 0 to 65535, not an object"),
        ("port: 2026-01-01", "`port` in presque.yaml:1 should be a whole number from 0 to 65535, not a date"),
        ("workers: 0", "`workers` in presque.yaml:1 should be a whole number from 1 to 64, not `0`"),
        ("host: 'a b'", "`host` in presque.yaml:1 should be a host name or an IP address, not `a b`"),
        ("host: ''", "`host` in presque.yaml:1 should be a host name or an IP address, not empty"),
        ("host: 1", "`host` in presque.yaml:1 should be a host name or an IP address, not `1`"),
        (
            "namespace: '{a}'",
            (
                "`namespace` in presque.yaml:1 should be 1 to 64 letters, digits and . _ -, "
                "beginning with a letter or digit, not `{a}`"
            ),
        ),
        (
            "namespace: no",
            (
                "`namespace` in presque.yaml:1 should be 1 to 64 letters, digits and . _ -, "
                "beginning with a letter or digit (put it in quotes), not `false`"
            ),
        ),
        ("insecure: 1", "`insecure` in presque.yaml:1 should be true or false, not `1`"),
        ("memory: maybe", "`memory` in presque.yaml:1 should be true or false, not `maybe`"),
        ("hosts: 5", "`hosts` in presque.yaml:1 should be a list of host names, not `5`"),
        ("hosts: ['a:80']", "`hosts` in presque.yaml:1 should be host names without a port, not `a:80`"),
        ("hosts: ['*']", "`hosts` in presque.yaml:1 should be a host name or an IP address, not `*`"),
        (
            "origins: [https://a/]",
            (
                "`origins` in presque.yaml:1 should be web origins such as https://ui.example, "
                "without a path, not `https://a/`"
            ),
        ),
        (
            "max_body: 1XB",
            (
                "`max_body` in presque.yaml:1 should be a size such as 512KiB, 2MiB or 1GiB, "
                "or a number of bytes, not `1XB`"
            ),
        ),
        ("max_body: 0", "`max_body` in presque.yaml:1 should be a size from 1 byte to 512MiB, not `0`"),
        ("max_body: 1GiB", "`max_body` in presque.yaml:1 should be a size from 1 byte to 512MiB, not `1GiB`"),
        (
            "maxmemory: 512",
            "`maxmemory` in presque.yaml:1 should be 0 for no limit, or at least 1MiB, not `512`",
        ),
        ("data: 7", "`data` in presque.yaml:1 should be a path, not `7`"),
        ("fsync: no", "`fsync` in presque.yaml:1 should be always or everysec, not `false`"),
        ("log_format: xml", "`log_format` in presque.yaml:1 should be auto, plain or json, not `xml`"),
        (
            "log_level: loud",
            "`log_level` in presque.yaml:1 should be debug, info, warning or error, not `loud`",
        ),
        ("redis: {}", "`redis` in presque.yaml:1 is empty: give it host and port, unix, or url"),
        ("redis: [a]", "`redis` in presque.yaml:1 should be a store URL such as redis://127.0.0.1:6379/0"),
        (
            "redis:\n  host: h\n  port: 0",
            "`redis.port` in presque.yaml:3 should be a whole number from 1 to 65535, not `0`",
        ),
        (
            "redis:\n  db: 1",
            (
                "`redis.db` in presque.yaml:2 is set, but nothing says where the store is: "
                "give redis.host, redis.unix or redis.url"
            ),
        ),
        (
            "redis:\n  host: h\n  password: 12345",
            (
                "`redis.password` in presque.yaml:3 should be text, which is not repeated here; "
                "in YAML put it in quotes"
            ),
        ),
        ("- port", "presque.yaml should hold settings, each as `name: value`"),
        ("port: [1", "presque.yaml:1 is not valid YAML: expected ',' or ']', but got '<stream end>'"),
        (
            "port: 1\n memory: true",
            "presque.yaml:2 is not valid YAML: mapping values are not allowed here",
        ),
        (
            "port: 1\n- a",
            "presque.yaml:2 is not valid YAML: expected <block end>, but found '-'",
        ),
        (
            "redis:\n  password: *$12345",
            "presque.yaml:2 is not valid YAML: expected alphabetic or numeric character",
        ),
        ("redis:\n  password: *secret", "presque.yaml:2 is not valid YAML: found undefined alias"),
        ("port: !!python/name:os.system x", "presque.yaml:1 is not valid YAML: "),
        ("port: 2026-13-45", "presque.yaml is not valid YAML"),
        ("port: \x07", "presque.yaml is not valid YAML"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_line(yaml: str, sentence: str) -> None:
    said = refusal(yaml)
    assert said == sentence or (sentence.endswith((" ", "`[", "YAML")) and said.startswith(sentence))
    assert "secret" not in said
    assert "12345" not in said


def test_a_file_that_is_not_utf8_or_not_readable_is_named() -> None:
    Path("presque.yaml").write_bytes(b"host: \xff\n")
    assert refusal() == "presque.yaml is not UTF-8"


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        (
            {"PRESQUE_PROT": "1"},
            "unknown setting `PRESQUE_PROT` in the environment, did you mean `PRESQUE_PORT`?",
        ),
        (
            {"PRESQUE_REDIS_HOST": "x"},
            "unknown setting `PRESQUE_REDIS_HOST` in the environment, did you mean `PRESQUE_REDIS__HOST`?",
        ),
        (
            {"PRESQUE_TOKENS": "x"},
            "unknown setting `PRESQUE_TOKENS` in the environment, did you mean `PRESQUE_TOKEN`?",
        ),
        (
            {"PRESQUE_PORT": "5000 "},
            "`PRESQUE_PORT` in the environment should be a whole number from 0 to 65535, not `5000 `",
        ),
        (
            {"PRESQUE_PORT": "\u0665"},
            "`PRESQUE_PORT` in the environment should be a whole number from 0 to 65535, not `\u0665`",
        ),
        ({"PRESQUE_MEMORY": "2"}, "`PRESQUE_MEMORY` in the environment should be true or false, not `2`"),
        (
            {"PRESQUE_FSYNC": "Always"},
            "`PRESQUE_FSYNC` in the environment should be always or everysec, not `Always`",
        ),
        (
            {"PRESQUE_HOSTS": "a,,b"},
            "`PRESQUE_HOSTS` in the environment should be a host name or an IP address, not empty",
        ),
        (
            {"PRESQUE_DATA": "~nobody-of-that-name/x"},
            (
                "`PRESQUE_DATA` in the environment should be a path, and nobody here "
                "has the home directory of "
                "`~nobody-of-that-name/x`"
            ),
        ),
        (
            {"PRESQUE_LOG_LEVEL": "x\x1b[31m\n" * 40},
            "`PRESQUE_LOG_LEVEL` in the environment should be debug, info, warning or error, not `"
            + ("x?[31m?" * 40)[:64]
            + "…`",
        ),
        (
            {"PRESQUE_REDIS": "redis://a", "PRESQUE_REDIS__URL": "redis://b"},
            (
                "`PRESQUE_REDIS` in the environment and `PRESQUE_REDIS__URL` in the environment "
                "contradict each other: both set `redis.host`"
            ),
        ),
        (
            {"PRESQUE_REDIS": "redis://:a@h", "PRESQUE_REDIS__PASSWORD": "b"},
            (
                "`PRESQUE_REDIS` in the environment and `PRESQUE_REDIS__PASSWORD` in the environment "
                "contradict each other: both set `redis.password`"
            ),
        ),
    ],
)
def test_a_mistake_in_the_environment_is_named_as_it_was_written(
    environ: dict[str, str], sentence: str
) -> None:
    assert refusal(environ=environ) == sentence


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"port": "x"}, "`--port` should be a whole number from 0 to 65535, not `x`"),
        (
            {"max_body": "9999999999999999"},
            (
                "`--max-body` should be a size such as 512KiB, 2MiB or 1GiB, or a number of bytes, "
                "not `9999999999999999`"
            ),
        ),
        ({"hosts": ["a b"]}, "`--allow-host` should be a host name or an IP address, not `a b`"),
        (
            {"redis.url": "http://x"},
            "`--redis` is not a store URL: it should begin with redis://, rediss:// or unix://",
        ),
        ({"data": ""}, "`--data` should be a path, not empty"),
    ],
)
def test_a_mistake_in_a_flag_names_the_flag(flags: dict[str, object], sentence: str) -> None:
    assert refusal(flags=flags) == sentence


@pytest.mark.parametrize(
    ("yaml", "environ", "flags", "sentence"),
    [
        (
            "data: /srv",
            {},
            {"memory": True},
            (
                "`--memory` and `data` in presque.yaml:1 contradict each other: "
                "a store in memory has no directory"
            ),
        ),
        (
            "data: /srv",
            {"PRESQUE_REDIS": "redis://h"},
            {},
            (
                "`PRESQUE_REDIS` in the environment and `data` in presque.yaml:1 contradict each other: "
                "a store of your own keeps its data where you told it to"
            ),
        ),
        (
            None,
            {},
            {"redis.url": "redis://h", "memory": True},
            "`--redis` and `--memory` contradict each other: presque uses one store, yours or its own",
        ),
        (
            "fsync: always",
            {},
            {"redis.url": "unix:///s"},
            (
                "`--redis` and `fsync` in presque.yaml:1 contradict each other: "
                "a store of your own has its own `appendfsync`"
            ),
        ),
        (
            "redis: {host: h}\nmaxmemory: 1GiB",
            {},
            {},
            (
                "`redis.host` in presque.yaml:1 and `maxmemory` in presque.yaml:2 contradict each other: "
                "a store of your own has its own `maxmemory`"
            ),
        ),
        (
            "redis: {host: h}\nmin_free_disk: 1GiB",
            {},
            {},
            (
                "`redis.host` in presque.yaml:1 and `min_free_disk` in presque.yaml:2 contradict each other: "
                "presque watches the disk of its own store alone"
            ),
        ),
        (
            "redis:\n  host: h\n",
            {"PRESQUE_REDIS__UNIX": "/s"},
            {},
            (
                "`PRESQUE_REDIS__UNIX` in the environment and `redis.host` in presque.yaml:2 "
                "contradict each other: "
                "a store is reached through a socket file or over the network"
            ),
        ),
        (
            "redis:\n  unix: /s\n  tls: true",
            {},
            {},
            (
                "`redis.unix` in presque.yaml:2 and `redis.tls` in presque.yaml:3 contradict each other: "
                "there is no TLS on a socket file"
            ),
        ),
        (
            "redis:\n  host: h\n  password: a\n  password_file: b",
            {},
            {},
            (
                "`redis.password` in presque.yaml:3 and `redis.password_file` in presque.yaml:4 "
                "contradict each other: there is one password"
            ),
        ),
        (
            None,
            {},
            {"redis.url": "redis://secret@h"},
            "`--redis` names a user without a password: a URL with a password alone is redis://:PASSWORD@host",
        ),
    ],
)
def test_what_contradicts_is_named_with_both_places(
    yaml: str | None, environ: dict[str, str], flags: dict[str, object], sentence: str
) -> None:
    assert refusal(yaml, environ, flags) == sentence


def test_what_is_switched_off_contradicts_nothing() -> None:
    yaml = "memory: false\nmaxmemory: 0\nredis: {unix: /s, tls: false}"
    assert read(yaml).settings.redis == RedisSettings(unix=Path("/s"))
    assert read("data: /srv\nmemory: false").settings.data == Path("/srv")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", RedisSettings(host="h")),
        ("redis://H.example:6380/", RedisSettings(host="h.example", port=6380)),
        ("redis://h/3", RedisSettings(host="h", db=3)),
        ("redis://[::1]:7000/1", RedisSettings(host="::1", port=7000, db=1)),
        ("rediss://h", RedisSettings(host="h", tls=True)),
        ("redis://:pa%40ss%2F@h", RedisSettings(host="h", password="pa@ss/")),
        ("redis://ann:p%3Aw@h", RedisSettings(host="h", username="ann", password="p:w")),
        ("redis://ann:p:w@h", RedisSettings(host="h", username="ann", password="p:w")),
        ("unix:///run/v.sock", RedisSettings(unix=Path("/run/v.sock"))),
        ("unix:///run/a%20b.sock?db=2", RedisSettings(unix=Path("/run/a b.sock"), db=2)),
        ("unix://ann:pw@/run/v.sock", RedisSettings(unix=Path("/run/v.sock"), username="ann", password="pw")),
    ],
)
def test_a_store_url_is_read(url: str, expected: RedisSettings) -> None:
    assert read(flags={"redis.url": url}).settings.redis == expected
    assert read(environ={"PRESQUE_REDIS": url}).settings.redis == expected
    assert read(f"redis: '{url}'").settings.redis == expected
    assert read(f"redis:\n  url: '{url}'").settings.redis == expected


ENCODE = "in a user or password write %40 for @, %2F for /, %3A for :, %3F for ?, %23 for # and %25 for %"


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("", "it should begin with redis://, rediss:// or unix://"),
        ("h:6379", "it should begin with redis://, rediss:// or unix://"),
        ("redis:h", "it should begin with redis://, rediss:// or unix://"),
        ("http://h", "it should begin with redis://, rediss:// or unix://"),
        ("redis://", "the host is missing or not valid"),
        ("redis:///0", "the host is missing or not valid"),
        ("redis://:secret@", "the host is missing or not valid"),
        ("redis://a_$b", "the host is missing or not valid"),
        ("redis://a,b:1", "the host is missing or not valid"),
        ("redis://h:0", "the port should be from 1 to 65535"),
        ("redis://h:65536", "the host or the port is not valid"),
        ("redis://h:x", "the host or the port is not valid"),
        ("redis://[::1", "the host or the port is not valid"),
        ("redis://h/x", "the database should be a number, as in redis://host:6379/2"),
        ("redis://h/1/2", "the database should be a number, as in redis://host:6379/2"),
        ("redis://h/-1", "the database should be a number, as in redis://host:6379/2"),
        ("redis://h?db=1", "it takes no ?; the database follows the host, as in redis://host/2"),
        ("redis://h?", "it takes no ?; the database follows the host, as in redis://host/2"),
        ("redis://h#x", "it takes no #"),
        ("redis://h#", "it takes no #"),
        ("redis://h 1", "it holds a space or an unprintable character"),
        ("redis://h\n", "it holds a space or an unprintable character"),
        ("redis://:secret%@h", "% must be followed by two hexadecimal digits; write %25 for %"),
        ("redis://:secret%ff@h", "the bytes written with % are not UTF-8"),
        ("redis://:secret%00@h", "%00 is not allowed"),
        ("redis://:se/cret@h", ENCODE),
        ("redis://:se@cret@h", ENCODE),
        ("redis://:se#cret@h", ENCODE),
        ("redis://:se?cret@h", ENCODE),
        ("redis://:se[cret@h", ENCODE),
        ("unix://run/v.sock", "the path should begin with a third /, as in unix:///run/valkey.sock"),
        ("unix://", "the path should begin with a third /, as in unix:///run/valkey.sock"),
        ("unix:///", "the path should begin with a third /, as in unix:///run/valkey.sock"),
        ("unix:///s?d=1", "after the ? it takes db=NUMBER and nothing else"),
        ("unix:///s?db=1&db=2", "after the ? it takes db=NUMBER and nothing else"),
        ("unix:///s?db=", "the database should be a number, as in redis://host:6379/2"),
    ],
)
def test_a_bad_store_url_is_refused_without_repeating_any_of_it(url: str, sentence: str) -> None:
    assert refusal(flags={"redis.url": url}) == f"`--redis` is not a store URL: {sentence}"


def test_a_url_replaces_what_weaker_layers_said_about_the_store() -> None:
    loaded = read("redis: {host: old, password: of-the-old-one, db: 4}", {"PRESQUE_REDIS": "redis://new"})
    assert loaded.settings.redis == RedisSettings(host="new")


def test_a_single_field_refines_what_weaker_layers_said_about_the_store() -> None:
    loaded = read("redis: redis://h/2", {"PRESQUE_REDIS__PASSWORD": "pw"})
    assert loaded.settings.redis == RedisSettings(host="h", db=2, password="pw")


def test_a_password_is_shown_nowhere() -> None:
    loaded = read(environ={"PRESQUE_REDIS": "redis://ann:hunter2@h"})
    assert loaded.settings.redis is not None
    rows = {one.setting: (one.value, one.origin.short) for one in loaded.entries()}
    assert rows["redis.password"] == ("***", "PRESQUE_REDIS")
    assert rows["redis.username"] == ("ann", "PRESQUE_REDIS")
    assert rows["redis.db"] == (0, "default")
    for text in (repr(loaded), str(loaded.settings), repr(loaded.entries()), loaded.settings.redis.address):
        assert "hunter2" not in text


def test_a_password_file_is_read_without_its_line_end() -> None:
    Path("secret").write_text("hunter2\n")
    redis = read("redis: {host: h, password_file: secret}").settings.redis
    assert redis is not None
    assert redis.password == "hunter2"
    assert "hunter2" not in repr(redis)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "`redis.password_file` in presque.yaml:1 cannot be read: {path}: No such file or directory"),
        (
            b"",
            "`redis.password_file` in presque.yaml:1 should hold a password in one line, and {path} does not",
        ),
        (
            b"a\nb\n",
            "`redis.password_file` in presque.yaml:1 should hold a password in one line, and {path} does not",
        ),
        (b"\xff", "`redis.password_file` in presque.yaml:1 should hold a password, and {path} is not UTF-8"),
    ],
)
def test_a_password_file_must_hold_a_password(content: bytes | None, sentence: str) -> None:
    path = Path.cwd() / "secret"
    if content is not None:
        path.write_bytes(content)
    assert refusal("redis: {host: h, password_file: secret}") == sentence.format(path=path)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost", "LOCALHOST"])
def test_loopback_is_safe_to_listen_on(host: str) -> None:
    settings = Settings(host=host, hosts=("localhost", "::1"))
    assert config.exposed(settings) is None
    config.check_tokens(settings, "make one")


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.168.1.5", "queue.example", "localhost.example", "127.1"]
)
def test_anything_else_is_refused_without_a_token_unless_someone_insists(host: str) -> None:
    for settings, what in (
        (Settings(host=host), f"listen on {host}"),
        (Settings(hosts=("localhost", host)), f"answer to the host `{host}`"),
    ):
        with pytest.raises(NoToken) as caught:
            config.check_tokens(settings, "make one")
        assert str(caught.value) == (
            f"will not {what}: there is no access token yet, so anybody who reaches port 5000 could take and "
            "delete jobs; make one, or pass --insecure if the network itself keeps strangers out"
        )
    settings = Settings(host=host, insecure=True, port=0)
    config.check_tokens(settings, "make one")
    assert config.insecure_warning(settings) == (
        f"told to listen on {host} without access tokens: "
        "anybody who reaches its port can take and delete jobs"
    )


@pytest.mark.parametrize(
    ("environ", "platform", "expected"),
    [
        ({"HOME": "/home/a"}, "linux", "/home/a/.local/share/presque"),
        ({"HOME": "/home/a", "XDG_DATA_HOME": "/x"}, "linux", "/x/presque"),
        ({"HOME": "/home/a", "XDG_DATA_HOME": "x"}, "linux", "/home/a/.local/share/presque"),
        (
            {"HOME": "/Users/a", "XDG_DATA_HOME": "/x"},
            "darwin",
            "/Users/a/Library/Application Support/presque",
        ),
    ],
)
def test_data_lives_in_the_data_directory_of_the_user(
    environ: dict[str, str], platform: str, expected: str
) -> None:
    assert config.default_data_directory(environ, platform) == Path(expected)


def test_without_a_home_somebody_must_say_where_the_data_lives() -> None:
    with pytest.raises(SetupError, match="pass --data DIR"):
        config.default_data_directory({}, "linux")


def test_a_store_in_memory_or_of_your_own_has_no_data_directory() -> None:
    assert config.data_directory(Settings(memory=True)) is None
    assert config.data_directory(Settings(redis=RedisSettings())) is None
    assert config.data_directory(Settings(data=Path("/srv"))) == Path("/srv")


@pytest.mark.parametrize("text", ["0", "1", "1023", "1KiB", "1536KiB", "2MiB", "3GiB"])
def test_a_size_is_written_as_it_is_read(text: str) -> None:
    assert quantities.size_text(quantities.size(text)) == text


def test_every_reader_belongs_to_a_setting_and_every_setting_has_one() -> None:
    fields = {name for name in Settings.__struct_fields__ if name not in SECTIONS}
    fields |= {f"redis.{name}" for name in (*RedisSettings.__struct_fields__, "url")}
    fields |= {f"tls.{name}" for name in TlsSettings.__struct_fields__}
    fields |= {f"limits.{name}" for name in LimitSettings.__struct_fields__}
    fields |= {f"xmpp.{name}" for name in XmppSettings.__struct_fields__}
    assert set(setting_values.READERS) == fields
