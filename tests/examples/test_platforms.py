"""The files for containers, Kubernetes and systemd: valid, and what they ask for is there."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from presque import Client
from presque.config.loading import load
from tests import rig
from tests.stories.test_cli import run

EXAMPLES = Path(__file__).parents[2] / "examples"
COMPOSE = EXAMPLES / "containers" / "compose.yaml"
DOCKERFILE = EXAMPLES / "containers" / "Dockerfile"
MANIFESTS = sorted((EXAMPLES / "kubernetes").glob("*.yaml"))


def kubernetes(name: str, kind: str) -> dict[str, Any]:
    documents = yaml.safe_load_all((EXAMPLES / "kubernetes" / name).read_text())
    [found] = [one for one in documents if one["kind"] == kind]
    return dict(found)


def pod(name: str, kind: str) -> dict[str, Any]:
    return dict(kubernetes(name, kind)["spec"]["template"]["spec"])


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile and what follows each."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    text = "\n".join(lines).replace("\\\n", " ")
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in text.splitlines() if line.strip()]


def environments() -> dict[str, dict[str, str]]:
    """The settings of presque in each file."""
    [container] = pod("presque.yaml", "StatefulSet")["containers"]
    env = " ".join(value for name, value in instructions() if name == "ENV")
    return {
        "Dockerfile": dict(part.split("=", 1) for part in shlex.split(env)),
        "compose.yaml": yaml.safe_load(COMPOSE.read_text())["services"]["presque"]["environment"],
        "presque.yaml": {one["name"]: one["value"] for one in container["env"]},
    }


# --- containers


def test_the_image_runs_without_root_and_says_how_it_is() -> None:
    found = instructions()
    last = dict(found)
    assert [name for name, _ in found if name == "FROM"] == ["FROM", "FROM"]
    assert last["USER"] == "10001:10001"
    assert json.loads(last["CMD"]) == ["presque", "serve"]  # a list: a shell would not pass signals on
    assert last["STOPSIGNAL"] == "SIGTERM"
    assert [name for name, _ in found].index("USER") > [name for name, _ in found].index("RUN")
    kept = (DOCKERFILE.parent / f"{DOCKERFILE.name}.dockerignore").read_text().split()
    root = EXAMPLES.parent
    assert all((root / name.removeprefix("!")).exists() for name in kept if name != "*")
    assert {"!src", "!pyproject.toml", "!README.md", "!LICENSE", "!NOTICE"} <= set(kept)


def test_a_wheel_can_be_built_of_what_the_image_copies(tmp_path: Path) -> None:
    kept = (DOCKERFILE.parent / f"{DOCKERFILE.name}.dockerignore").read_text().split()
    for name in [one.removeprefix("!") for one in kept if one != "*"]:
        source, target = EXAMPLES.parent / name, tmp_path / "src" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    done = subprocess.run(
        command, cwd=tmp_path / "src", capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_health_check_of_the_image_tells_a_server_that_runs(server: rig.Server) -> None:
    health = dict(instructions())["HEALTHCHECK"]
    [_, command] = json.loads(health.partition("CMD ")[2])[1:]
    for port, code in ((server.port, 0), (1, 1)):
        asked = command.replace(":5000/", f":{port}/")
        done = subprocess.run([sys.executable, "-c", asked], capture_output=True, timeout=60, check=False)
        assert done.returncode == code


def test_the_compose_file_is_valid() -> None:
    check = Path(sys.executable).with_name("check-jsonschema")
    done = subprocess.run(
        [check, "--builtin-schema", "vendor.compose-spec", COMPOSE],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    for service in services.values():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
    assert (COMPOSE.parent / services["presque"]["build"]["context"]).resolve() == EXAMPLES.parent


@pytest.mark.parametrize("file", ["Dockerfile", "compose.yaml", "presque.yaml"])
def test_the_settings_of_a_file_are_those_of_presque(file: str) -> None:
    named = {name: value for name, value in environments()[file].items() if name.startswith("PRESQUE_")}
    assert named
    loaded = load(environ={"HOME": "/root", **{name: str(value) for name, value in named.items()}})
    assert loaded.settings is not None


@pytest.fixture
def as_in_a_container(tmp_path: Path) -> Iterator[Any]:
    """Starts a program as process 1, without privileges, on a root that is read-only but for `data`."""
    rig.require("setpriv")
    if os.geteuid() != 0:
        pytest.skip("only root may make a root read-only")
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    inside = (
        f"mount --make-rprivate / && mount --bind {data} {data} && mount --bind / /mnt && "
        f"mount -o remount,bind,ro /mnt && mount --bind {data} /mnt{data} && "
        "mount -t tmpfs tmpfs /mnt/run && "
        "mount -t proc proc /mnt/proc && mount --bind /dev /mnt/dev && cd /mnt && "
        'exec chroot /mnt setpriv --bounding-set=-all --inh-caps=-all --no-new-privs "$@"'
    )
    namespace = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    tried = subprocess.run([*namespace, "bash", "-c", inside, "-", "true"], check=False, capture_output=True)
    if tried.returncode:
        pytest.skip("this system gives no namespaces of processes and mounts")
    with contextlib.ExitStack() as stack:

        def start(*command: str, **environment: str) -> subprocess.Popen[bytes]:
            with (tmp_path / "log").open("wb") as log:
                process = subprocess.Popen(
                    [*namespace, "bash", "-c", inside, "-", *command],
                    env={**os.environ, **environment, "TMPDIR": "/run", "HOME": str(data)},
                    stdout=log, stderr=log,
                )  # fmt: skip
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        yield start, data


def below(pid: int) -> list[int]:
    """The children of a process, zombies too."""
    with contextlib.suppress(OSError):
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def test_it_runs_as_process_1_on_a_read_only_root_and_waits_for_orphans(
    as_in_a_container: Any, tmp_path: Path
) -> None:
    start, data = as_in_a_container
    port = rig.free_port()
    process = start(
        sys.executable, "-m", "presque", "serve",
        PRESQUE_DATA=str(data / "presque"), PRESQUE_PORT=str(port), PYTHONDONTWRITEBYTECODE="1",
    )  # fmt: skip
    log = tmp_path / "log"

    def answers() -> bool:
        with contextlib.suppress(Exception), Client(f"http://127.0.0.1:{port}", timeout=5) as client:
            return client.push("mail", 1) != ""
        return False

    rig.eventually(answers, 30, say=log.read_text)
    [first] = below(process.pid)
    assert first != process.pid

    # Somebody looks into the container and leaves a process behind, which process 1 inherits.
    enter = ["nsenter", "--target", str(first), "--pid", "--mount", "bash", "-c", "(sleep 0.3 &)"]
    subprocess.run(enter, check=True, timeout=60)
    rig.eventually(lambda: len(below(first)) == 1)  # the server alone: what ended was waited for
    assert (data / "presque" / "appendonlydir").is_dir()
    os.kill(first, signal.SIGTERM)
    assert process.wait(rig.PATIENCE) == 0


# --- Kubernetes


@pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: file.name)
def test_every_manifest_is_valid(file: Path) -> None:
    for document in yaml.safe_load_all(file.read_text()):
        if document["apiVersion"].startswith("keda.sh/"):
            assert set(document) == {"apiVersion", "kind", "metadata", "spec"}
            continue
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize(("file", "kind"), [("presque.yaml", "StatefulSet"), ("workers.yaml", "Deployment")])
def test_pods_have_no_privileges(file: str, kind: str) -> None:
    spec = pod(file, kind)
    assert spec["securityContext"]["runAsNonRoot"]
    assert not spec["automountServiceAccountToken"]
    labels = kubernetes(file, kind)["spec"]["template"]["metadata"]["labels"]
    assert kubernetes(file, kind)["spec"]["selector"]["matchLabels"].items() <= labels.items()
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip


def test_the_pod_has_a_token_before_it_starts_and_answers_its_probes(tmp_path: Path) -> None:
    [container] = pod("presque.yaml", "StatefulSet")["containers"]
    settings = {name: str(value) for name, value in environments()["presque.yaml"].items()}
    first = pod("presque.yaml", "StatefulSet")["initContainers"][0]["command"]
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    paths = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for _ in range(2):  # a pod starts more than once
        command = [part.replace("/data", str(data)) for part in first]
        subprocess.run(command, check=True, timeout=60, env={**os.environ, "PATH": paths})
    token = (data / "admin-token").read_text().strip()
    assert (data / "admin-token").stat().st_mode & 0o777 == 0o600
    with rig.server("--data", str(data), **settings) as server:
        asked = server.ask("GET", "/stats/", Host="presque:5000", Authorization=f"Bearer {token}")
        assert asked.status == 200
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            path = container[probe]["httpGet"]["path"]
            assert server.ask("GET", path, Host="10.1.2.3:5000").status == 200
        assert server.ask("GET", "/stats/", Host="presque.default.svc.cluster.local:5000").status == 401
        assert server.ask("GET", "/stats/", Host="elsewhere:5000").status == 421


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[tuple[rig.Server, Any]]:
    """A server with tokens, and what makes one."""
    data = str(tmp_path / "data")

    def token(allow: str) -> str:
        return run("token", "new", "t", "--allow", allow, "--data", data).stdout.strip()

    admin = token("*:*")
    with rig.server("--data", data) as server, Client(server.url, admin) as client:
        client.push_many("mail", range(5))
        yield server, token


def allowed_in(file: Path) -> str:
    """The rule of the token that a file tells people to make."""
    found = re.findall(r"--allow '([^']+)'", file.read_text())
    return str(found[-1])


def test_keda_finds_its_number_with_the_token_of_the_file(guarded: tuple[rig.Server, Any]) -> None:
    server, token = guarded
    file = EXAMPLES / "kubernetes" / "keda.yaml"
    [trigger] = kubernetes("keda.yaml", "ScaledObject")["spec"]["triggers"]
    asked = trigger["metadata"]
    path = asked["url"].partition(":5000")[2]
    bearer = token(allowed_in(file))
    assert asked["authMode"] == "bearer"
    assert server.ask("GET", path).status == 401
    answer = server.ask("GET", path, Authorization=f"Bearer {bearer}")
    assert answer.json[asked["valueLocation"]] == 5
    named = kubernetes("keda.yaml", "ScaledObject")["spec"]["scaleTargetRef"]["name"]
    assert named == kubernetes("workers.yaml", "Deployment")["metadata"]["name"]


@pytest.mark.parametrize("file", ["kubernetes/workers.yaml", "containers/compose.yaml"])
def test_a_worker_works_with_the_token_of_the_file(guarded: tuple[rig.Server, Any], file: str) -> None:
    server, token = guarded
    if file.startswith("kubernetes"):
        [container] = pod("workers.yaml", "Deployment")["containers"]
        command = container["command"]
    else:
        command = yaml.safe_load(COMPOSE.read_text())["services"]["worker"]["command"]
    bearer = token(allowed_in(EXAMPLES / file))
    done = run(*command[1:], "--burst", PRESQUE_URL=server.url, PRESQUE_TOKEN=bearer)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == ["0", "1", "2", "3", "4"]


# --- systemd


@pytest.mark.parametrize("unit", ["presque.service", "presque-worker@.service"])
def test_systemd_understands_the_unit(unit: str, tmp_path: Path) -> None:
    analyze = rig.require("systemd-analyze")
    program = Path(sys.executable).with_name("presque")
    text = (EXAMPLES / "systemd" / unit).read_text().replace("/opt/presque/bin/presque", str(program))
    text = text.replace("User=presque", "User=daemon").replace("Group=presque", "Group=daemon")
    file = tmp_path / unit.replace("@", "@mail")
    file.write_text(text)
    done = subprocess.run(
        [analyze, "verify", str(file)], capture_output=True, text=True, timeout=60, check=False
    )
    complaints = [line for line in done.stderr.splitlines() if str(file.name) in line]
    assert (done.returncode, complaints) == (0, []), done.stderr


@pytest.mark.parametrize("unit", ["presque.service", "presque-worker@.service"])
def test_the_unit_is_shut_off_from_what_it_does_not_need(unit: str) -> None:
    analyze = rig.require("systemd-analyze")
    done = subprocess.run(
        [analyze, "security", "--offline=true", "--no-pager", "--threshold=20",
         str(EXAMPLES / "systemd" / unit)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout.splitlines()[-1]


def test_the_guide_shows_the_heart_of_the_unit() -> None:
    guide = (EXAMPLES.parent / "docs" / "guides" / "operations.md").read_text()
    shown = guide[guide.index("```ini") :].split("```")[1].splitlines()[1:]
    unit = (EXAMPLES / "systemd" / "presque.service").read_text().splitlines()
    assert [line for line in shown if line not in unit] == []
