"""The commands in a shell, and the page that describes them."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from service.__main__ import main as program
from service.api.schemas import Face, ImageAnswer
from service.cli import app
from service.predict.rows import HEAD, TAIL
from service.predict.sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from service.settings import Settings
from tests.fake_engine import fake_engines
from tests.scenes import video
from tests.unit.test_docs import check, json_blocks, section

GUIDES = Path(__file__).parents[3] / "docs" / "guides"
PAGE = (GUIDES / "command-line.md").read_text(encoding="utf-8")
VIDEOS = (GUIDES / "videos.md").read_text(encoding="utf-8")
COMMANDS = ("predict", "report", "serve", "check", "models")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("expressnet pre", ["predict"]),
        ("expressnet predict --anno", ["--annotate"]),
        ("expressnet keys r", ["revoke"]),
    ],
)
def test_a_shell_completes_commands_and_options(words: str, offered: list[str]) -> None:
    environment = {
        "_EXPRESSNET_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    result = CliRunner().invoke(app, [], prog_name="expressnet", env=environment)
    assert result.stdout.split() == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_is_shown(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shellingham.detect_shell", lambda: (shell, f"/bin/{shell}"))
    result = CliRunner().invoke(app, ["--show-completion"], prog_name="expressnet")
    assert result.exit_code == 0
    assert "_EXPRESSNET_COMPLETE=complete_" in result.stdout


def test_options_override_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Settings] = []
    monkeypatch.setattr("service.serving.server.serve", served.append)
    environment = {"EXPRESSNET_PORT": "1234", "EXPRESSNET_TIMEOUT_S": "3", "EXPRESSNET_PROCESSES": "1"}
    for arguments in ([], ["--port", "0", "--host", "::1"]):
        assert CliRunner().invoke(app, ["serve", *arguments], env=environment).exit_code == 0
    assert [(each.host, each.port, each.timeout_s) for each in served] == [
        ("127.0.0.1", 1234, 3),
        ("::1", 0, 3),
    ]
    monkeypatch.setattr("service.serving.supervisor.supervise", lambda settings: settings.processes)
    assert CliRunner().invoke(app, ["serve"], env={"EXPRESSNET_PROCESSES": "3"}).exit_code == 3
    refused = CliRunner().invoke(app, ["serve", "--host", "0.0.0.0"])
    assert refused.exit_code == 2
    assert "EXPRESSNET_KEYS_FILE" in refused.stderr
    assert len(served) == 2


def test_models_are_listed_as_json(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["models", "--json"])
    entries = json.loads(result.stdout)
    assert [entry["name"] for entry in entries] == ["expressnet_moe", "yunet", "yunet_mtcnn"]
    assert all(entry["verified"] for entry in entries)
    (tmp_path / "broken").mkdir()
    result = CliRunner().invoke(app, ["models", "--json", "--repository", str(tmp_path)])
    assert result.exit_code == 1
    (entry,) = json.loads(result.stdout)
    assert (entry["verified"], "is missing" in entry["error"]) == (False, True)


def test_suffixes_and_columns_are_those_of_the_code() -> None:
    suffixes = re.findall(r"`(\.\w+)`", section(PAGE, "### Which files"))
    assert sorted(suffixes) == sorted(IMAGE_SUFFIXES)
    assert re.findall(r"`(\.\w+)`", section(VIDEOS, "## Formats")) == [*VIDEO_SUFFIXES]
    columns = section(PAGE, "### CSV")
    for column in (*HEAD, *TAIL):
        assert f"`{column}`" in columns


def test_rows_on_the_page_are_valid_rows_of_this_version() -> None:
    seen = set()
    for block in json_blocks(PAGE):
        content = json.loads(block)
        if "path" not in content:
            continue
        assert set(content) <= {"path", "file", "model", "query", "image", "faces_found", "faces", "problem"}
        seen.add("faces" in content)
        if "faces" in content:
            check(ImageAnswer, {key: content[key] for key in ("image", "faces_found", "faces")})
            for face in content["faces"]:
                check(Face, face)
        else:
            assert set(content["problem"]) == {"code", "title", "detail"}
    assert seen == {True, False}


def test_the_commands_on_the_page_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, astronaut: NDArray[np.uint8], astronaut_jpeg: bytes
) -> None:
    repository = Settings().model_repository.resolve()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "astronaut.jpg").write_bytes(astronaut_jpeg)
    video(tmp_path / "walk.mp4", dict.fromkeys(range(10), astronaut))
    (tmp_path / "model_repository").symlink_to(repository)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EXPRESSNET_PORT", "0")
    monkeypatch.setattr("service.assembly.make_engines", lambda *_: fake_engines())
    monkeypatch.setattr("service.telemetry.logs.configure_logs", lambda *_: None)
    monkeypatch.setattr("service.serving.server.serve", lambda _: None)
    monkeypatch.setenv("EXPRESSNET_PROCESSES", "1")
    lines = [
        line for block in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.M | re.S) for line in block.splitlines()
    ]
    assert {line.split()[1] for line in lines} == set(COMMANDS)
    for line in lines:
        name, *words = shlex.split(line)
        stdin = Path(words.pop()).read_bytes() if "<" in words else None
        result = CliRunner().invoke(app, [word for word in words if word != "<"], input=stdin)
        assert (name, result.exit_code) == ("expressnet", 0), (line, result.output)
    assert Path("walk.timeline.csv").exists()
    assert Path("answers.jsonl").read_bytes().count(b"\n") == 1
    assert Path("pictures/photos/astronaut.jpg").exists()


def test_an_interrupt_while_modules_load_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("service.cli.main", interrupted)
    with pytest.raises(SystemExit) as ended:
        program()
    assert ended.value.code == 130
