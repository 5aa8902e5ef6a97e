"""The documents leave nothing out and make nothing up: each list in them is compared with the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from presque.verbs import bounds
from presque.cli.config import SIZES
from presque.cli.main import COMMANDS as CLI_COMMANDS
from presque.cli.serve import serve
from presque.config.loading import SECTIONS
from presque.config.settings import LimitSettings, RedisSettings, Settings, TlsSettings, XmppSettings
from presque.http import head, problems
from presque.quantities import size_text
from presque.config.values import READERS
from presque.verbs import COMMANDS, VERBS
from presque.verbs.vocabulary import OF_A_BATCH, OF_A_SETTLE
from tests.docs import documents

SOURCE = documents.ROOT / "src" / "presque"
PROTOCOL = documents.ROOT / "docs" / "protocol.md"
EVENTS = documents.ROOT / "docs" / "events.md"
SETTINGS = documents.ROOT / "docs" / "settings.md"
ARCHITECTURE = documents.ROOT / "ARCHITECTURE.md"

LEVELS = ("debug", "info", "warning", "error", "critical", "exception")


def calls() -> Iterator[ast.Call]:
    """Every call in the source."""
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                yield node


# --- the protocol


def routes_of_the_protocol() -> dict[str, str]:
    """`POST /q/{queue}` -> its heading."""
    found = [heading for heading in documents.headings(PROTOCOL) if re.match(r"[A-Z]+ /", heading)]
    return {heading.replace("{queues}", "{queue}"): heading for heading in found}


def test_the_protocol_has_a_section_for_every_route_and_no_other() -> None:
    routes = {verb.route.replace("{queues}", "{queue}") for verb in VERBS.values() if verb.route}
    assert set(routes_of_the_protocol()) == routes | {"GET /"}


OF_ONE_LEASE = ("ack", "fail", "release", "extend")  # their fields are those of POST /settle


@pytest.mark.parametrize("name", sorted(VERBS.keys() - set(OF_ONE_LEASE) - {"put_back"}))
def test_the_protocol_has_every_field_of_a_verb_and_no_other(name: str) -> None:
    verb = VERBS[name]
    if verb.route is None:
        return
    fields = {one for one, field in verb.outside.items() if field.header is None}
    text = documents.section(PROTOCOL, routes_of_the_protocol()[verb.route.replace("{queues}", "{queue}")])
    if name == "change_policy":
        text += documents.section(PROTOCOL, "GET /p/{queue}")
    for field in fields:
        assert re.search(rf"[`\"]{field}\b", text), field
    tables = re.findall(r"^\| parameter \|.*\n(?:\|.*\n)+", text, re.MULTILINE)
    written = {row[0] for table in tables for row in list(documents.rows(table))[1:]}
    others = {field for other in VERBS.values() if other.route == verb.route for field in other.fields}
    assert {word.partition(".")[0] for word in written} <= others


def test_the_protocol_says_what_may_be_said_of_each_settled_lease() -> None:
    text = documents.section(PROTOCOL, "POST /settle")
    rows = {row[0]: row[1] for row in documents.rows(text)}
    for name, (_, fields) in OF_A_SETTLE.items():
        assert all(re.search(rf"\b{field.name}\b", rows[name]) for field in fields), (name, rows[name])


def test_the_protocol_has_every_command_and_its_fields() -> None:
    text = documents.section(PROTOCOL, "POST /queue")
    rows = {word: row for row in documents.rows(text) for word in re.findall(r"[a-z_]+", row[0])}
    for name in COMMANDS:
        assert name in rows, name


def test_the_protocol_names_the_parameters_of_a_batch_push() -> None:
    text = " ".join(documents.section(PROTOCOL, "POST /qb/{queue}").split())
    sentence = text[text.index("The parameters") : text.index("are for each")]
    assert set(re.findall(r"`(\w+)`", sentence)) == {field.name for field in OF_A_BATCH}


@pytest.mark.parametrize(
    ("what", "written"),
    [
        ("head of a request", f"{head.MOST_BYTES // 1024} KiB"),
        ("headers", f"{head.MOST_HEADERS}"),
        ("time for a head to arrive", f"{LimitSettings().head:g} s"),
        ("time for a body to arrive", f"{LimitSettings().body:g} s"),
        ("a connection without a request", f"{LimitSettings().idle:g} s"),
        ("jobs in one push or fetch of many", f"{bounds.BATCH_MOST}"),
    ],
)
def test_the_protocol_states_the_limits_that_hold(what: str, written: str) -> None:
    limits = {row[0]: row[1] for row in documents.rows(documents.section(PROTOCOL, "Limits"))}
    assert limits[what] == written


@pytest.mark.parametrize(
    ("parameter", "bounds"),
    [
        ("delay", f"a duration, 0 to {bounds.DELAY_MOST} seconds (10 years)"),
        ("ttl", f"a duration, 0.001 to {bounds.DELAY_MOST} seconds"),
        ("uniq", f"a key of 1 to {bounds.KEY_MOST} bytes"),
        ("attempts", f"1 to {bounds.ATTEMPTS_MOST}"),
        ("keep", f"a duration, 0 to {bounds.KEEP_MOST} seconds (1 year)"),
    ],
)
def test_the_protocol_states_the_bounds_that_hold(parameter: str, bounds: str) -> None:
    values = {row[0]: row[1] for row in documents.rows(documents.section(PROTOCOL, "POST /q/{queue}"))}
    assert values[parameter] == bounds


def test_the_protocol_explains_every_status_of_an_error_and_makes_none_up() -> None:
    kinds = {"BadHead": 400, "NotAllowed": 403, }
    sent = {status for _, status in problems._STATUS}
    for call in calls():
        if isinstance(call.func, ast.Name) and call.func.id in kinds:
            numbers = [a.value for a in call.args if isinstance(a, ast.Constant) and type(a.value) is int]
            sent.add(numbers[0] if numbers else kinds[call.func.id])
    table = documents.rows(documents.section(PROTOCOL, "Status codes"))
    assert {int(row[0]) for row in table if row[0].isdigit() and int(row[0]) >= 300} == sent


# --- events


def events_of_the_source() -> set[tuple[str, str, str]]:
    """Event, level and fields of every line that presque may log."""
    found = set()
    for call in calls():
        if not (
            isinstance(call.func, ast.Attribute)
            and call.func.attr in LEVELS
            and isinstance(call.func.value, ast.Name)
            and call.func.value.id == "log"
        ):
            continue
        template = call.args[0]
        assert isinstance(template, ast.Constant), (
            f"the event of a log call is a literal: {ast.unparse(call)}"
        )
        event, *fields = str(template.value).split(" ")
        found.add((event, call.func.attr, ", ".join(field.partition("=")[0] for field in fields)))
    return found


def test_the_events_are_those_of_the_source_with_their_levels_and_fields() -> None:
    written = {
        (row[0], row[1], "" if row[2] == "-" else row[2].replace("`", ""))
        for row in documents.rows(EVENTS.read_text("utf-8"))
        if row[0] != "event"
    }
    assert written == events_of_the_source()


def test_every_event_says_what_it_means_and_what_to_do() -> None:
    for row in documents.rows(EVENTS.read_text("utf-8")):
        assert len(row) == 5, row
        assert all(row), row


# --- settings


KINDS: dict[str, type[msgspec.Struct]] = {
    "redis": RedisSettings,
    "tls": TlsSettings,
    "limits": LimitSettings,
    "xmpp": XmppSettings,
}


def setting_rows() -> dict[str, list[str]]:
    return {row[0]: row for row in documents.rows(SETTINGS.read_text("utf-8")) if row[0] != "YAML key"}


def test_the_settings_are_those_that_presque_reads() -> None:
    fields = set(Settings.__struct_fields__) - set(SECTIONS) | {"redis.url"}
    fields |= {f"{section}.{name}" for section, kind in KINDS.items() for name in kind.__struct_fields__}
    assert set(setting_rows()) == set(READERS) == fields


@pytest.mark.parametrize("key", sorted(READERS))
def test_a_setting_is_documented_with_its_variable_its_flag_and_its_default(key: str) -> None:
    _, variable, flag, default, _ = setting_rows()[key]
    assert variable == (
        "PRESQUE_REDIS" if key == "redis.url" else f"PRESQUE_{key.replace('.', '__').upper()}"
    )
    assert flag == flags().get(key, "-")
    value = default_of(key)
    if value is None or value in ((), {}):
        assert default in ("none", "found", "your data directory")
    else:
        assert default == written(key, value)


def flags() -> dict[str, str]:
    """Setting -> the flag of `presque serve` that says it."""
    names = {"redis_url": "redis.url", "allow_host": "hosts", "tls_cert": "tls.cert", "tls_key": "tls.key"}
    return {
        names.get(option.name, option.name): option.opts[0]
        for option in serve.params
        if option.name is not None and option.name != "config"
    }


def default_of(key: str) -> Any:
    if key == "redis.url":
        return None
    section, _, field = key.rpartition(".")
    found = {one.name: one for one in msgspec.structs.fields(KINDS[section] if section else Settings)}[field]
    return None if found.default is msgspec.NODEFAULT else found.default


def written(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}s"
    return size_text(value) if key in SIZES else str(value)


# --- imports; pyproject.toml has the contracts on their direction


MODULES = {
    ".".join(("presque", *file.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__"): file
    for file in SOURCE.rglob("*.py")
}
LOADED_LATER = {
    ("presque.__main__", "presque.cli.main"),  # Ctrl-C may come meanwhile
    ("presque.__main__", "presque.exits"),
    ("presque.cli.serve", "presque.server.serving"),  # others start without the libraries of the server
    ("presque.cli.xmpp", "presque.server.serving"),
    ("presque.server.serving", "presque.server.server"),  # while the store starts, a process of its own
    ("presque.server.throw_away", "presque.server.serving"),  # for the same reason
    ("presque.server.throw_away", "presque.config.loading"),
    ("presque.server.throw_away", "presque.config.settings"),
    ("presque.server.throw_away", "presque.log"),
    ("presque.tasks.__main__", "presque.tasks.program"),  # signals are heard before
    # a start need not wait for what is seldom asked for
    ("presque.server.server", "presque.dashboard.pages"),
    ("presque.http.routes", "presque.openapi"),
    ("presque.server.server", "presque.xmpp.component"),  # its library is an extra
    # OpenTelemetry is an extra, too
    ("presque.server.server", "presque.http.traced"),
    ("presque.traces", "presque.traces.spans"),
    ("presque.traces", "presque.traces.exporter"),
    # a program that only pushes tasks starts without asyncio and without the worker
    ("presque.tasks.app", "presque.client.async_client"),
    ("presque.tasks.app", "presque.tasks.inline"),
    ("presque.tasks.app", "presque.tasks.worker"),
    ("presque.pytest_plugin", "presque.testing"),  # whoever runs pytest imports the plugin
}
NAMED_FOR_TYPE_CHECKERS_ALONE = {
    "presque", "presque.client", "presque.client.calls", "presque.tasks", "presque.worker",  # loaded when asked for
    "presque.tasks.app",  # for the reason above
    "presque.pytest_plugin",
}  # fmt: skip

TYPES_ALONE = "presque.client.answers"  # what only pushes does without the time that it takes to make them


def imported(tree: ast.AST) -> Iterator[str]:
    """The modules of presque that are imported anywhere inside."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "presque":
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                yield inner if inner in MODULES else str(node.module)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.split(".")[0] == "presque")


def test_no_import_hides_in_a_function_or_from_the_interpreter() -> None:
    later, hidden = set(), set()
    for name, file in MODULES.items():
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                later |= {(name, one) for one in imported(node)}
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                hidden |= {name for one in imported(node) if one != TYPES_ALONE}
    assert later == LOADED_LATER
    assert hidden == NAMED_FOR_TYPE_CHECKERS_ALONE


# --- commands, files, links


@pytest.mark.parametrize("command", sorted(CLI_COMMANDS))
def test_every_command_is_shown_in_the_readme_or_a_guide(command: str) -> None:
    texts = [document.read_text("utf-8") for document in documents.with_examples()]
    assert any(re.search(rf"presque {command}\b", text) for text in texts)


def test_the_architecture_names_every_file_of_the_source_and_no_other() -> None:
    text = documents.section(ARCHITECTURE, "The files")
    tree = text[text.index("```text") : text.index("```\n", text.index("```text") + 3)]
    named: set[str] = set()
    folders: list[str] = []
    for line in tree.splitlines()[2:]:
        if not line.strip():
            continue
        depth = (len(line) - len(line.lstrip())) // 2 - 1
        name = line.split()[0]
        folders[depth:] = [name] if name.endswith("/") else []
        if not name.endswith("/"):
            named.add("".join([*folders[:depth], name]))
    there = {
        str(file.relative_to(SOURCE))
        for pattern in ("*.py", "*.lua")
        for file in SOURCE.rglob(pattern)
        if file.name != "__init__.py" or file.parent == SOURCE
    }
    assert named == there


def test_every_link_inside_the_project_leads_somewhere() -> None:
    broken = [
        f"{documents.called(document)}: {link}"
        for document in documents.all_documents()
        for link in documents.links(document)
        if not leads_somewhere(document, link)
    ]
    assert broken == []


def leads_somewhere(document: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = document if not path else (document.parent / path).resolve()
    if not target.exists() or not target.is_relative_to(documents.ROOT):
        return False
    return not anchor or anchor in map(documents.anchor, documents.headings(target))


def test_every_decision_is_in_the_list_of_decisions() -> None:
    folder = documents.ROOT / "docs" / "decisions"
    pages = {page.name for page in folder.glob("[0-9]*.md")}
    assert set(documents.links(folder / "README.md")) == pages
