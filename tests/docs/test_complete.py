"""The documents leave nothing out and make nothing up: each list in them is compared with the code."""

from __future__ import annotations

import ast
import graphlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from presque import verbs
from presque.cli.main import COMMANDS as CLI_COMMANDS
from presque.cli.serve import serve
from presque.config import RedisSettings, Settings
from presque.http import connection, head, problems
from presque.quantities import size_text
from presque.setting_values import READERS
from presque.verbs import COMMANDS, OF_A_BATCH, OF_A_SETTLE, VERBS
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
    text = documents.section(PROTOCOL, "POST /qb/{queue}")
    sentence = text[text.index("The parameters") : text.index("are for each")]
    assert set(re.findall(r"`(\w+)`", sentence)) == {field.name for field in OF_A_BATCH}


@pytest.mark.parametrize(
    ("what", "written"),
    [
        ("head of a request", f"{head.MOST_BYTES // 1024} KiB"),
        ("headers", f"{head.MOST_HEADERS}"),
        ("time for a head to arrive", f"{connection.HEAD_WITHIN_S:g} s"),
        ("time for a body to arrive", f"{connection.BODY_WITHIN_S:g} s"),
        ("a connection without a request", f"{connection.IDLE_S:g} s"),
        ("jobs in one push or fetch of many", f"{verbs.BATCH_MOST}"),
    ],
)
def test_the_protocol_states_the_limits_that_hold(what: str, written: str) -> None:
    limits = {row[0]: row[1] for row in documents.rows(documents.section(PROTOCOL, "Limits"))}
    assert limits[what] == written


@pytest.mark.parametrize(
    ("parameter", "bounds"),
    [
        ("delay", f"a duration, 0 to {verbs.DELAY_MOST} seconds (10 years)"),
        ("ttl", f"a duration, 0.001 to {verbs.DELAY_MOST} seconds"),
        ("uniq", f"a key of 1 to {verbs.KEY_MOST} bytes"),
        ("attempts", f"1 to {verbs.ATTEMPTS_MOST}"),
        ("keep", f"a duration, 0 to {verbs.KEEP_MOST} seconds (1 year)"),
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


def setting_rows() -> dict[str, list[str]]:
    return {row[0]: row for row in documents.rows(SETTINGS.read_text("utf-8")) if row[0] != "YAML key"}


def test_the_settings_are_those_that_presque_reads() -> None:
    fields = set(Settings.__struct_fields__) - {"redis"}
    fields |= {f"redis.{name}" for name in RedisSettings.__struct_fields__} | {"redis.url"}
    assert set(setting_rows()) == set(READERS) == fields


@pytest.mark.parametrize("key", sorted(READERS))
def test_a_setting_is_documented_with_its_variable_its_flag_and_its_default(key: str) -> None:
    _, variable, flag, default, _ = setting_rows()[key]
    assert variable == (
        "PRESQUE_REDIS" if key == "redis.url" else f"PRESQUE_{key.replace('.', '__').upper()}"
    )
    assert flag == flags().get(key, "-")
    value = default_of(key)
    if value is None or value == ():
        assert default in ("none", "found", "your data directory")
    else:
        assert default == written(key, value)


def flags() -> dict[str, str]:
    """Setting -> the flag of `presque serve` that says it."""
    names = {"redis_url": "redis.url", "allow_host": "hosts"}
    return {
        names.get(option.name, option.name): option.opts[0]
        for option in serve.params
        if option.name is not None and option.name != "config"
    }


def default_of(key: str) -> Any:
    if key == "redis.url":
        return None
    holder: Settings | RedisSettings = RedisSettings() if key.startswith("redis.") else Settings()
    return getattr(holder, key.removeprefix("redis."))


def written(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return size_text(value) if key in ("max_body", "min_free_disk") else str(value)


# --- floors


GROUND = (
    "errors", "names", "codec", "job", "config", "setting_values", "schedule", "log", "frames", "quantities",
    "fields", "verbs", "shapes", "openapi", "version",
)  # fmt: skip
STANDARD_LIBRARY_ALONE = {"errors", "names", "log", "frames", "quantities", "fields", "verbs", "version"}
FLOORS = {
    **dict.fromkeys(GROUND, "ground"),
    **dict.fromkeys(("about", "server", "fleet", "cli", "__main__"), "roof"),
}
BELOW = {
    "ground": set[str](),
    "store": {"errors"},
    "engine": {"ground", "store"},
    "commands": {"ground", "engine"},
    "http": {"ground", "engine", "commands"},
    "ws": {"ground", "engine", "commands"},
    "dashboard": {"ground", "engine", "commands"},
    "client": STANDARD_LIBRARY_ALONE,
    "worker": STANDARD_LIBRARY_ALONE | {"client"},
    "testing": STANDARD_LIBRARY_ALONE | {"client", "worker"},
    "roof": {"ground", "store", "engine", "commands", "http", "ws", "dashboard", "client", "worker"},
}


def imports(file: Path) -> Iterator[str]:
    """The parts of presque that a file imports: `errors`, `engine`, …"""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "presque":
            yield from (name.name for name in node.names if not name.name.startswith("__"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("presque."):
            yield str(node.module).split(".")[1]


@pytest.mark.parametrize("file", sorted(SOURCE.rglob("*.py")), ids=lambda file: str(file.relative_to(SOURCE)))
def test_a_file_imports_only_what_stands_below_it(file: Path) -> None:
    part = file.relative_to(SOURCE).parts[0].removesuffix(".py")
    floor = FLOORS.get(part, part)
    if floor == "__init__":
        assert set(imports(file)) <= {"client", "worker", "version"}  # the public names
        return
    below = BELOW[floor] | {part, floor}
    assert [found for found in imports(file) if found not in below and FLOORS.get(found) not in below] == []


MODULES = {
    ".".join(("presque", *file.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__"): file
    for file in SOURCE.rglob("*.py")
}
LOADED_LATER = {
    ("presque.cli.serve", "presque.server"),  # other commands start without the libraries of the server
}
NAMED_FOR_TYPE_CHECKERS_ALONE = {"presque"}  # its public names are loaded when they are asked for


def imported(tree: ast.AST) -> Iterator[str]:
    """The modules of presque that are imported anywhere inside."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "presque":
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                yield inner if inner in MODULES else str(node.module)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.split(".")[0] == "presque")


def test_no_modules_import_one_another_in_a_circle() -> None:
    """`static_order` raises for a circle and names it. Packages by their first part are held by the floors."""
    graph = {name: set(imported(ast.parse(file.read_text("utf-8")))) for name, file in MODULES.items()}
    assert set(graphlib.TopologicalSorter(graph).static_order()) == set(MODULES)


def test_no_import_hides_in_a_function_or_from_the_interpreter() -> None:
    later, hidden = set(), set()
    for name, file in MODULES.items():
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                later |= {(name, one) for one in imported(node)}
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                hidden |= {name for _ in imported(node)}
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
