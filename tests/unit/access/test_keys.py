"""The keys file: how it is written, which files are refused, and how a running gateway applies a change."""

from __future__ import annotations

import asyncio
import codecs
import os
import re
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from typer.testing import CliRunner

from service.access import keys
from service.access.keys import Keyring, KeysFileError, parse_keys, read_keys, watch
from service.access.keys_file import HEADING, add_key, remove_key
from service.access.rates import Rate
from service.access.scopes import Scope
from service.cli import app as command_line
from service.telemetry.metrics import Metrics
from tests.conftest import eventually

DIGEST = "a" * 64
GOOD = f'[one]\nsha256 = "{DIGEST}"\nscopes = ["predict"]\n'


def _mixed(noise: bytes) -> str:
    """A good file with noise in the middle."""
    return GOOD[:40] + noise.decode("latin-1") + GOOD[40:]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


def test_a_key_has_256_bits_behind_a_prefix_and_only_its_digest_is_kept(file: Path) -> None:
    secrets = {add_key(file, f"k{i}", [Scope.PREDICT], None, None) for i in range(20)}
    assert len(secrets) == 20
    text = file.read_text()
    for secret in secrets:
        assert re.fullmatch(r"xn_[A-Za-z0-9_-]{43}", secret)
        assert secret not in text
        assert sha256(secret.encode()).hexdigest() in text


def test_written_keys_are_read_back(file: Path) -> None:
    end = datetime(2030, 1, 2, tzinfo=UTC)
    add_key(file, "mobile", [Scope.BATCH, Scope.PREDICT], "100/minute", end)
    add_key(file, "ops", [Scope.ADMIN], None, None)
    mobile, ops = read_keys(file)
    assert (mobile.name, mobile.scopes) == ("mobile", frozenset({Scope.PREDICT, Scope.BATCH}))
    assert (mobile.rate, mobile.expires, mobile.expired) == (Rate(100, 60), end, False)
    assert (ops.name, ops.scopes, ops.rate, ops.expires) == ("ops", frozenset({Scope.ADMIN}), None, None)


def test_comments_and_the_mode_of_the_file_are_kept(file: Path) -> None:
    file.write_text("# ours\n\n" + GOOD + "# of one\n\n")
    file.chmod(0o640)
    add_key(file, "two", [Scope.PREDICT], None, None)
    assert "# ours" in file.read_text()
    assert "# of one" in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    remove_key(file, "one")
    assert [key.name for key in read_keys(file)] == ["two"]
    assert "# ours" in file.read_text()
    remove_key(file, "two")
    assert read_keys(file) == []


def test_only_the_named_key_is_removed(file: Path) -> None:
    for name in ("a", "a-b", "b", "a_b"):
        add_key(file, name, [Scope.PREDICT], "1/day", None)
    remove_key(file, "a")
    assert [key.name for key in read_keys(file)] == ["a-b", "b", "a_b"]


@pytest.mark.parametrize(
    "entry",
    [
        f'one = {{sha256 = "{DIGEST}", scopes = ["predict"]}}\n',
        f'one.sha256 = "{DIGEST}"\none.scopes = ["predict"]\n',
        f'["one"] # ours\n  sha256 = "{DIGEST}" # as `keys new` printed\n  scopes = [\n    "predict",\n  ]\n',
        GOOD.replace("\n", "\r\n"),
        GOOD + "# attached to one\n",
    ],
)
def test_an_entry_is_removed_in_every_notation(file: Path, entry: str) -> None:
    rest = f'\n# of two\n[two]\nsha256 = "{"b" * 64}"\nscopes = ["admin"]\n# the end'
    file.write_bytes(f"# ours\n{entry}{rest}".encode())
    remove_key(file, "one")
    text = file.read_text()
    assert [key.name for key in read_keys(file)] == ["two"]
    assert text.replace("\n", "") == f"# ours{rest}".replace("\n", "")
    add_key(file, "one", [Scope.PREDICT], None, None)
    assert file.read_text().startswith(text.rstrip())


def test_order_and_comments_are_kept(file: Path) -> None:
    for name in ("c", "a", "b"):
        add_key(file, name, [Scope.PREDICT], None, None)
    text = file.read_text().replace("[a]", "# The archive; ask Ann.\n[a]").replace("[b]", "# Nightly.\n[b]")
    file.write_text(text)
    add_key(file, "d", [Scope.PREDICT], None, None)
    assert file.read_text().startswith(text)
    remove_key(file, "a")
    assert [key.name for key in read_keys(file)] == ["c", "b", "d"]
    assert "# Nightly.\n[b]" in file.read_text()


def test_a_byte_order_mark_is_ignored(file: Path) -> None:
    file.write_bytes(codecs.BOM_UTF8 + GOOD.encode())
    assert [key.name for key in read_keys(file)] == ["one"]
    add_key(file, "two", [Scope.PREDICT], None, None)
    assert [key.name for key in read_keys(file)] == ["one", "two"]


def test_concurrent_commands_lose_no_key(file: Path) -> None:
    file.write_text(GOOD)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", "from service.cli import main; main()", "keys", *words, "--file", file]
        )
        for words in (
            ["revoke", "one"],
            *(["new", f"k{number}", "--scope", "predict"] for number in range(4)),
        )
    ]
    assert [process.wait(60) for process in processes] == [0] * len(processes)
    assert sorted(key.name for key in read_keys(file)) == [f"k{number}" for number in range(4)]
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("\n \n", "empty"),
        ("[one", "not TOML"),
        (GOOD + GOOD, "not TOML"),
        (GOOD + GOOD.replace("one", "two"), "same sha256"),
        (GOOD + "note = 1\n", "one.note"),
        (GOOD.replace("a" * 64, "a" * 63), "one.sha256"),
        (GOOD.replace("a" * 64, "A" * 64), "one.sha256"),
        ('[one]\nscopes = ["predict"]\n', "one.sha256"),
        (GOOD.replace('["predict"]', "[]"), "one.scopes"),
        (GOOD.replace("predict", "root"), "one.scopes.0"),
        (GOOD + 'rate = "fast"\n', "one.rate"),
        (GOOD + 'rate = "0/minute"\n', "one.rate"),
        (GOOD + "expires = 2030-01-01T00:00:00\n", "one.expires"),
        (GOOD.replace("one", '"a b"'), "'a b'"),
        ("one = 1\n", "one"),
    ],
)
def test_a_file_with_one_mistake_is_refused_whole(text: str, message: str) -> None:
    with pytest.raises(KeysFileError, match=re.escape(message)) as caught:
        parse_keys(text)
    assert DIGEST not in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.one_of(st.text(), st.integers(0, len(GOOD)).map(lambda at: GOOD[:at]), st.binary().map(_mixed)))
@example("a = " + "[" * 5_000)
@example("[one]\nexpires = 2030-02-31T00:00:00Z")
def test_any_text_gives_keys_or_a_keys_file_error(text: str) -> None:
    with suppress(KeysFileError):
        assert all(key.scopes and len(key.digest) == 64 for key in parse_keys(text))


def test_a_file_without_keys_gives_an_empty_keyring(file: Path) -> None:
    file.write_text(HEADING)
    assert len(Keyring(file)) == 0


def test_a_key_is_found_only_by_its_exact_secret(file: Path) -> None:
    secret = add_key(file, "mobile", [Scope.PREDICT], None, None)
    ring = Keyring(file)
    found = ring.find(secret)
    assert found is not None
    assert found.name == "mobile"
    digest = found.digest
    for other in (
        "",
        "xn_",
        secret[:-1],
        secret + "A",
        secret.swapcase(),
        secret[3:],
        digest,
        f" {secret}",
        "é",
    ):
        assert ring.find(other) is None
    assert "mobile" in repr(found)


def test_the_whole_digest_is_compared(file: Path) -> None:
    secret = add_key(file, "mobile", [Scope.PREDICT], None, None)
    digest = sha256(secret.encode()).hexdigest()
    other = digest[:-1] + ("0" if digest[-1] != "0" else "1")
    file.write_text(file.read_text().replace(digest, other))
    assert Keyring(file).find(secret) is None


def test_a_key_expires_at_its_time(file: Path) -> None:
    now = datetime.now(UTC)
    past = add_key(file, "past", [Scope.PREDICT], None, now - timedelta(seconds=2))
    future = add_key(file, "future", [Scope.PREDICT], None, now + timedelta(days=1))
    ring = Keyring(file)
    assert [key.expired for key in map(ring.find, (past, future)) if key] == [True, False]


def test_a_secret_mount_that_is_swapped_is_read_again(tmp_path: Path) -> None:
    """The kubelet updates a secret so: keys.toml -> ..data/keys.toml, and a new link replaces ..data."""
    made = tmp_path / "made.toml"
    secrets = []
    for number in range(2):
        version = tmp_path / f"..{number}"
        version.mkdir()
        secrets.append(add_key(made, f"k{number}", [Scope.PREDICT], None, None))
        (version / "keys.toml").write_text(made.read_text())
        # The files have the same times, so only the content differs.
        os.utime(version / "keys.toml", (1, 1))
    (tmp_path / "..data").symlink_to("..0")
    (tmp_path / "keys.toml").symlink_to("..data/keys.toml")
    ring = Keyring(tmp_path / "keys.toml")
    assert not ring.refresh()
    assert ring.find(secrets[1]) is None
    (tmp_path / "..tmp").symlink_to("..1")
    (tmp_path / "..tmp").replace(tmp_path / "..data")
    assert ring.refresh()
    assert ring.find(secrets[1]) is not None


@contextmanager
def watching(ring: Keyring, metrics: Metrics) -> Iterator[None]:
    """Run `watch` on its own thread, so that a test can wait for the effects."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(watch(ring, metrics))
    thread = threading.Thread(target=lambda: loop.run_until_complete(asyncio.wait([task])))
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        loop.close()


def test_a_broken_file_keeps_the_keys_and_is_logged_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "REFRESH_INTERVAL_S", 0.01)
    secret = add_key(file, "mobile", [Scope.PREDICT], None, None)
    good = file.read_text()
    ring, metrics = Keyring(file), Metrics()

    def valid() -> float | None:
        return metrics.registry.get_sample_value("expressnet_keys_file_valid")

    assert valid() == 1
    with capture_logs() as lines, watching(ring, metrics):
        for broken in ("", "[mobile", None):
            if broken is None:
                file.unlink()
            else:
                file.write_text(broken)
            eventually(lambda: valid() == 0)
            time.sleep(0.1)
            assert ring.find(secret) is not None
            file.write_text(good)
            eventually(lambda: valid() == 1)
        replaced = file.with_suffix(".new")
        replaced.write_text(HEADING)
        replaced.replace(file)
        eventually(lambda: ring.find(secret) is None)
    errors = [line["detail"] for line in lines if line["log_level"] == "error"]
    # A file that is written in place may be read while it is empty.
    assert {"the file is empty", "no such file or directory"} < set(errors)
    assert 3 <= len(errors) < 10
    assert [line["keys"] for line in lines if line["event"] == "keys changed"] == [0]


def test_the_command_line_creates_lists_and_revokes_keys(file: Path) -> None:
    def expressnet(*arguments: str, fails: bool = False) -> str:
        result = CliRunner().invoke(command_line, ["keys", *arguments, "--file", str(file)])
        assert (result.exit_code != 0) == fails, result.output
        return result.output.strip()

    secret = expressnet(
        "new",
        "mobile",
        "--scope",
        "predict",
        "--scope",
        "batch",
        "--rate",
        "100/minute",
        "--expires",
        "2020-01-01",
    )
    assert Keyring(file).find(secret) is not None
    assert expressnet("list") == "mobile: batch, predict, 100 images in 60 s, expired 2020-01-01 00:00 UTC"
    before = file.read_text()
    assert "already" in expressnet("new", "mobile", "--scope", "admin", fails=True)
    assert "is not a valid name" in expressnet("new", "a b", "--scope", "admin", fails=True)
    assert "rate" in expressnet("new", "slow", "--scope", "admin", "--rate", "slow", fails=True)
    assert "no key named other" in expressnet("revoke", "other", fails=True)
    assert file.read_text() == before
    expressnet("revoke", "mobile")
    assert expressnet("list") == ""


def test_a_path_that_is_missing_or_a_folder_is_a_keys_file_error(tmp_path: Path) -> None:
    with pytest.raises(KeysFileError, match="no such file or directory"):
        add_key(tmp_path / "nowhere" / "keys.toml", "a", [Scope.PREDICT], None, None)
    with pytest.raises(KeysFileError, match="is a directory"):
        read_keys(tmp_path)
