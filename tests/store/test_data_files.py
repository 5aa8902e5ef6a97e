"""Data that is missing, cut, altered or from another version is refused or told, and never taken for less."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from presque.errors import SetupError
from presque.store import embedded
from presque.store.data_files import is_torn
from presque.store.embedded import EmbeddedSettings, EmbeddedStore, find_binary
from tests import rig
from tests.asking import soon
from tests.store.test_embedded import client, contents, filled, refusal, running

BINARIES = {"valkey": lambda: find_binary(None), "redis-7.0": lambda: Path(rig.require("redis-server"))}


async def rewritten(directory: Path) -> Path:
    """A directory whose base holds 100 keys and whose increment holds 50 transactions; the increment."""
    async with running(directory) as store:
        with client(store) as redis_client:
            for number in range(100):
                redis_client.set(f"key{number}", "v" * 50)
            redis_client.bgrewriteaof()
            await soon(lambda: redis_client.info("persistence")["aof_rewrite_in_progress"] == 0)
            for number in range(50):
                with redis_client.pipeline() as pipe:
                    pipe.set(f"later{number}", "w" * 50)
                    pipe.rpush("list", number)
                    pipe.execute()
    [file] = (directory / "appendonlydir").glob("*.incr.aof")
    return file


def base_of(directory: Path) -> Path:
    [file] = (directory / "appendonlydir").glob("*.base.rdb")
    return file


def forget_note(directory: Path) -> None:
    """As if presque had never seen this directory: a backup by other means."""
    (directory / "presque.json").unlink()


# --- what is missing


async def test_without_its_manifest_data_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    await rewritten(directory)
    (directory / "appendonlydir" / "appendonly.aof.manifest").unlink()
    before = contents(directory)

    sentence = await refusal(directory)

    assert (
        "is incomplete: appendonlydir holds appendonly.aof.2.base.rdb but no appendonly.aof.manifest"
        in sentence
    )
    assert "presque restore" in sentence
    assert contents(directory) == before
    forget_note(directory)
    assert "is incomplete" in await refusal(directory)


@pytest.mark.parametrize("kind", ["base", "incr"])
async def test_a_file_that_the_manifest_lists_may_not_be_missing(tmp_path: Path, kind: str) -> None:
    directory = tmp_path / "data"
    await rewritten(directory)
    [lost] = (directory / "appendonlydir").glob(f"*.{kind}.*")
    lost.unlink()

    assert f"is incomplete: appendonlydir/{lost.name}, which the manifest lists, is missing" in await refusal(
        directory
    )


async def test_data_that_is_gone_is_not_an_empty_store(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    await filled(directory)
    shutil.rmtree(directory / "appendonlydir")

    sentence = await refusal(directory)

    assert "is gone: presque ran here before" in sentence
    assert f"remove {directory / 'presque.json'} to start empty" in sentence
    forget_note(directory)
    async with running(directory) as store:
        with client(store) as redis_client:
            assert redis_client.dbsize() == 0


@pytest.mark.parametrize(
    "name", ["dump.rdb", "appendonly.aof", "appendonly.aof.2.incr.aof", "appendonly.aof.manifest"]
)
async def test_files_of_data_in_the_wrong_place_are_not_passed_over(tmp_path: Path, name: str) -> None:
    directory = tmp_path / "data"
    directory.mkdir(mode=0o700)
    (directory / name).write_bytes(b"something")

    assert f"holds {name} outside of appendonlydir, where the store does not look for it" in await refusal(
        directory
    )


async def test_an_interrupted_restore_is_not_an_empty_store(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    (directory / "restoring").mkdir(parents=True, mode=0o700)

    assert "a restore into" in await refusal(directory)


# --- what is shorter


@pytest.mark.parametrize("kind", ["base", "incr"])
async def test_a_file_that_is_shorter_than_it_was_is_refused(tmp_path: Path, kind: str) -> None:
    directory = tmp_path / "data"
    await rewritten(directory)
    [cut] = (directory / "appendonlydir").glob(f"*.{kind}.*")
    size = cut.stat().st_size
    os.truncate(cut, size - 1)

    sentence = await refusal(directory)

    assert (
        f"is shorter than it was: appendonlydir/{cut.name} has {size - 1} bytes, and had {size}" in sentence
    )


async def test_an_increment_without_content_is_not_a_shorter_store(tmp_path: Path) -> None:
    """The store itself takes it for whole: it breaks off between two commands."""
    file = await rewritten(tmp_path / "data")
    os.truncate(file, 0)

    assert "is shorter than it was" in await refusal(tmp_path / "data")


async def test_after_a_kill_a_shorter_file_is_noticed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "NOTE_EVERY_S", 0.02)
    directory = tmp_path / "data"
    async with running(directory) as store:
        with client(store) as redis_client:
            redis_client.set("key", "v" * 1000)

        def noted() -> bool:
            said = json.loads((directory / "presque.json").read_text())["files"]
            return bool(said) and said["appendonly.aof.1.incr.aof"] > 1000

        await soon(noted)
        saved = tmp_path / "copy"
        shutil.copytree(directory, saved)
    (saved / "presque.lock").unlink()
    (saved / "store.address").unlink()
    os.truncate(saved / "appendonlydir" / "appendonly.aof.1.incr.aof", 0)

    assert "is shorter than it was" in await refusal(saved)


async def test_a_manifest_of_before_is_noticed(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    await filled(directory)
    old = (directory / "appendonlydir" / "appendonly.aof.manifest").read_bytes()
    kept = {file.name: file.read_bytes() for file in (directory / "appendonlydir").iterdir()}
    await rewritten(directory)
    for name, content in kept.items():
        (directory / "appendonlydir" / name).write_bytes(content)
    forget_note(directory)
    assert b"seq 1" in old

    assert "does not fit together: the manifest in appendonlydir is older than" in await refusal(directory)


@pytest.mark.parametrize("text", ["", "file appendonly.aof.1.base.rdb\n", "nonsense\n", "\x00" * 64])
async def test_a_damaged_manifest_is_refused(tmp_path: Path, text: str) -> None:
    directory = tmp_path / "data"
    await filled(directory)
    (directory / "appendonlydir" / "appendonly.aof.manifest").write_text(text)

    assert "appendonly.aof.manifest is damaged" in await refusal(directory)


async def test_a_damaged_note_is_refused(tmp_path: Path) -> None:
    await filled(tmp_path / "data")
    (tmp_path / "data" / "presque.json").write_text("[" * 100_000)

    assert "presque.json is damaged" in await refusal(tmp_path / "data")


# --- a torn end


@pytest.mark.parametrize("kind", sorted(BINARIES))
@pytest.mark.parametrize("cut", [1, 10, 60, 135])
async def test_a_torn_end_is_cut_off_kept_and_told(
    tmp_path: Path, cut: int, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    binary, directory = BINARIES[kind](), tmp_path / "data"
    async with running(directory, binary=binary) as store:
        with client(store) as redis_client:
            for number in range(20):
                with redis_client.pipeline() as pipe:
                    pipe.set(f"key{number}", "v" * 50)
                    pipe.rpush("list", number)
                    pipe.execute()
    forget_note(directory)
    [file] = (directory / "appendonlydir").glob("*.incr.aof")
    whole = file.read_bytes()
    os.truncate(file, len(whole) - cut)

    async with running(directory, binary=binary) as store:
        with client(store) as redis_client:
            assert redis_client.dbsize() == 20  # 19 keys and the list
            assert redis_client.llen("list") == 19
        [told] = store.cuts

    kept = told.kept_in.read_bytes()
    assert told.size == len(kept)
    start = whole.index(kept, int(told.kept_in.name.split(".")[-2]))
    assert whole[start:] == kept + whole[-cut:]
    assert told.kept_in.stat().st_mode & 0o077 == 0
    assert "store.end_cut_off" in caplog.text
    async with running(directory, binary=binary) as store:
        assert store.cuts == []


async def test_zeros_behind_the_last_write_are_a_torn_end(tmp_path: Path) -> None:
    """What some file systems leave after a power cut."""
    for number, cut in enumerate((0, 5, 60)):
        directory = tmp_path / str(number)
        file = await filled(directory, 20)
        forget_note(directory)
        os.truncate(file, file.stat().st_size - cut)
        with file.open("ab") as output:
            output.write(bytes(4096))

        async with running(directory) as store:
            with client(store) as redis_client:
                assert redis_client.dbsize() == (19 if cut else 20)
            [told] = store.cuts
            assert told.size > 4000


async def test_a_store_that_dies_in_the_midst_of_a_write_comes_back(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as store:
        with client(store) as redis_client:
            redis_client.set("key", "value")
        [file] = (tmp_path / "data" / "appendonlydir").glob("*.incr.aof")
        with file.open("ab") as output:
            output.write(b"*3\r\n$3\r\nSET\r\n$5\r\nother")
        pid = store.pid
        assert pid is not None
        os.kill(pid, 9)
        await soon(lambda: store.pid not in (None, pid) and bool(store.cuts))
        await soon(lambda: _has(store, "key"))


def _has(store: EmbeddedStore, key: str) -> bool:
    with client(store) as redis_client:
        try:
            return bool(redis_client.exists(key))
        except redis.RedisError:
            return False


async def test_a_torn_end_that_cannot_be_kept_is_left_as_it_is(tmp_path: Path) -> None:
    file = await filled(tmp_path / "data")
    forget_note(tmp_path / "data")
    os.truncate(file, file.stat().st_size - 5)
    (tmp_path / "data" / "cut-off").write_text("a file where the directory should be")
    before = contents(tmp_path / "data")

    assert "which cannot be kept in" in await refusal(tmp_path / "data")
    assert contents(tmp_path / "data") == before


# --- what is altered


def replaced(file: Path, old: bytes, new: bytes) -> None:
    """Alter one place in the middle."""
    data = file.read_bytes()
    at = data.index(old, len(data) // 2)
    file.write_bytes(data[:at] + new + data[at + len(old) :])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"$50\r\n", b"$99999999\r\n"),
        (b"$50\r\n", b"$999\r\n"),
        (b"$50\r\n", b"$49\r\n"),
        (b"$50\r\n", b"$5x\r\n"),
        (b"*3\r\n", b"*9999\r\n"),
        (b"*3\r\n", b"*4\r\n"),
        (b"*3\r\n", b"*2\r\n"),
        (b"\r\n*3\r\n", b"\r\n\0\0\0\0"),
        (b"SET\r\n", b"SEQ\r\n"),
        (b"EXEC\r\n", b"EXEX\r\n"),
    ],
)
async def test_altered_data_is_refused_and_left_as_it_is(tmp_path: Path, old: bytes, new: bytes) -> None:
    directory = tmp_path / "data"
    file = await rewritten(directory)
    replaced(file, old, new)
    forget_note(directory)
    before = contents(directory)

    sentence = await refusal(directory)

    assert "damaged" in sentence, sentence
    assert contents(directory) == before
    assert not (directory / "cut-off").exists()
    assert "truncate -s" in sentence or "It says: " in sentence


async def test_an_increment_that_is_not_the_last_may_not_be_torn(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    file = await rewritten(directory)
    later = file.with_name(file.name.replace(".2.incr", ".3.incr"))
    later.write_bytes(b"*3\r\n$3\r\nSET\r\n$5\r\nother\r\n$1\r\nv\r\n")
    manifest = directory / "appendonlydir" / "appendonly.aof.manifest"
    manifest.write_text(manifest.read_text() + f"file {later.name} seq 3 type i\n")
    forget_note(directory)
    os.truncate(file, file.stat().st_size - 5)

    assert "is damaged" in await refusal(directory)


@pytest.mark.parametrize("harm", ["cut", "altered", "key twice", "empty"])
async def test_a_harmed_base_is_refused(tmp_path: Path, harm: str) -> None:
    directory = tmp_path / "data"
    await rewritten(directory)
    base = base_of(directory)
    data = base.read_bytes()
    middle = len(data) // 2
    base.write_bytes(
        {
            "cut": data[:-20],
            "altered": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
            "key twice": data.replace(b"\x05key45", b"\x05key41"),  # the store crashes
            "empty": b"",
        }[harm]
    )
    forget_note(directory)

    assert "damaged" in await refusal(directory)


# --- of another version


async def test_data_of_a_later_layout_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path / "data", layout=3):
        pass

    assert "was written by a later presque (layout 3, this one reads 1)" in await refusal(tmp_path / "data")


async def test_a_snapshot_of_a_later_store_is_refused_with_what_to_do(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    await rewritten(directory)
    base = base_of(directory)
    assert base.read_bytes().startswith(b"VALKEY")
    binary = Path(rig.require("redis-server"))
    store = EmbeddedStore(EmbeddedSettings(directory=directory, binary=binary))

    with pytest.raises(SetupError) as refused:
        await store.start()

    assert "damaged or of another version" in str(refused.value)


# --- who may read it


async def test_nobody_else_may_read_the_files(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    directory.mkdir(mode=0o755)
    umask = os.umask(0o022)
    try:
        await rewritten(directory)
        async with running(directory):
            while_it_runs = readable(directory)
    finally:
        os.umask(umask)

    assert (while_it_runs, readable(directory)) == ([], [])


def readable(directory: Path) -> list[Path]:
    """The files that somebody besides their owner may read."""
    return [path for path in directory.rglob("*") if path.lstat().st_mode & 0o077]


async def test_files_that_an_earlier_version_left_readable_are_made_private(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "data"
    await filled(directory)
    for path in directory.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)

    async with running(directory):
        pass

    assert [path for path in directory.glob("appendonlydir*/**/*") if path.lstat().st_mode & 0o077] == []
    assert (directory / "appendonlydir").stat().st_mode & 0o077 == 0
    assert "store.made_private" in caplog.text


@pytest.mark.parametrize("mode", [0o2775, 0o2770])
async def test_a_volume_as_kubernetes_makes_it_is_accepted(tmp_path: Path, mode: int) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    directory.chmod(mode)

    await filled(directory)

    assert [path for path in directory.rglob("*") if path.lstat().st_mode & 0o077] == []


@pytest.mark.parametrize("mode", [0o2777, 0o2772])
async def test_a_volume_that_everybody_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    directory.chmod(mode)

    assert "others may write to" in await refusal(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
async def test_a_volume_of_a_group_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    os.chown(directory, 0, 4242)
    directory.chmod(0o2775)

    assert "others may write to" in await refusal(directory)


# --- telling a torn end from damage

words = st.lists(st.binary(max_size=20).filter(lambda word: word.upper() != b"EXEC"), min_size=1, max_size=4)


def encoded(command: list[bytes]) -> bytes:
    return b"*%d\r\n" % len(command) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in command)


@given(st.lists(words, min_size=1, max_size=4), st.data())
def test_any_beginning_of_commands_is_a_torn_end(commands: list[list[bytes]], data: st.DataObject) -> None:
    whole = b"".join(map(encoded, commands))
    cut = data.draw(st.integers(0, len(whole)))
    assert is_torn(whole[:cut])
    assert is_torn(whole[:cut] + bytes(data.draw(st.integers(0, 5000))))


@given(words, words)
def test_commands_inside_of_an_argument_are_damage(one: list[bytes], other: list[bytes]) -> None:
    assert not is_torn(b"*2\r\n$999999\r\nx\r\n" + encoded(one) + encoded(other))


def test_a_transaction_that_came_to_its_end_is_damage() -> None:
    assert not is_torn(encoded([b"MULTI"]) + encoded([b"exec"]) + encoded([b"SET", b"a"])[:-3])


# --- nothing that a kill leaves is refused


async def test_a_store_that_is_killed_while_it_writes_its_log_anew_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "NOTE_EVERY_S", 0.01)
    directory, written = tmp_path / "data", 0
    for turn in range(12):
        store = EmbeddedStore(EmbeddedSettings(directory=directory))
        await store.start()
        try:
            with client(store) as redis_client:
                assert redis_client.llen("list") >= written
                redis_client.bgrewriteaof()
                for _ in range(20 + 7 * turn):
                    written = int(redis_client.rpush("list", "x" * 3000))
                assert store._process is not None
                store._process.kill()  # what it wrote anew may be half done
                store._process.wait()
        finally:
            await store.stop()
    async with running(directory) as last:
        with client(last) as redis_client:
            assert redis_client.llen("list") >= written
