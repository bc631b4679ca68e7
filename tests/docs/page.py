"""Runs the blocks of a page as a reader would: in order, in one folder, against a running service."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.conftest import free_port
from tests.docs.answers import Differs, compare, refresh
from tests.docs.blocks import ROOT, Block
from tests.docs.files import KEY, make_files
from tests.docs.syntax import JAVASCRIPT, OUTPUT, PYTHON, SHELL, check_syntax

# The port of the service on the pages.
PORT = 8000
LIMIT_S = 150


class Failed(Exception):
    """A block that does not do what the page says."""


class Page:
    """One page, with the state after the blocks so far. `close` ends the services that the blocks started.

    refresh: Answers are not compared. `answers` has the new text of each block whose answer differs, by its
    line.
    """

    def __init__(self, folder: Path, port: int, *, refresh: bool = False) -> None:
        self.answers: dict[int, str] = {}
        self._refresh = refresh
        self._folder = folder
        self._ports = {PORT: port}
        self._services: dict[str, int] = {}
        self._processes: list[subprocess.Popen[bytes]] = []
        self._answer: str | None = None
        self._answer_section = ""
        self._compared: set[str] = set()
        self._free_port = free_port()
        (folder / ".state").touch()
        (folder / "model_repository").symlink_to(ROOT / "model_repository")
        (folder / ".venv").symlink_to(sys.prefix)
        (folder / "docs").symlink_to(ROOT / "docs")
        (folder / "examples").symlink_to(ROOT / "examples")

    def try_block(self, block: Block) -> str:
        """Returns the outcome of the block: `ran`, `compared`, `written` or `read`. Raises `Failed`."""
        try:
            check_syntax(block.language, block.text)
        except Exception as error:
            raise Failed(f"it cannot be read: {error}") from None
        shows_commands = block.language == "console" and block.text.startswith("$ ")
        if "not run" in block.marks:
            self._answer = None
            return "read"
        make_files(block.text + " ".join(block.marks.values()), self._folder)
        if "file" in block.marks:
            return self._write(block)
        if block.language in SHELL | PYTHON | JAVASCRIPT:
            self._run(block)
            return "ran"
        if shows_commands:
            self._run_console(block)
            return "ran"
        return self._compare(block)

    def close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _write(self, block: Block) -> str:
        target = self._folder / block.marks["file"]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(self._with_real_ports(block.text))
        return "written"

    def _run(self, block: Block) -> None:
        self._answer, self._answer_section, self._compared = None, block.section, set()
        if port := _port_served(block):
            return self._serve(block.text, port)
        default_port = self._ports[PORT]
        try:
            if "with" in block.marks:
                self._ports[PORT] = self._service(block.marks["with"])
            for _ in range(int(block.marks.get("times", "1"))):
                self._answer = self._finish(block)
        finally:
            self._ports[PORT] = default_port

    def _finish(self, block: Block) -> str:
        expected = int(block.marks.get("exit", "0"))
        command = self._command(block.language, block.text)
        try:
            done = subprocess.run(
                command,
                cwd=self._folder,
                env=self._environment(),
                capture_output=True,
                text=True,
                timeout=LIMIT_S,
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"it did not end within {LIMIT_S} s; {HOW_TO_MARK}") from None
        if done.returncode != expected:
            output = f"{done.stdout}{done.stderr}{HOW_TO_MARK}"
            raise Failed(f"it ended with exit code {done.returncode}, not {expected}:\n{output}")
        return done.stdout

    def _run_console(self, block: Block) -> None:
        """Runs `$ command` lines. Each command has its output below."""
        sessions = []
        for session in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            command, _, shown = session.partition("\n")
            self._run(Block(block.line, "sh", command, block.section, block.marks))
            if shown.strip():
                self._compare(Block(block.line, "text", shown, block.section, block.marks))
            space = shown[len(shown.rstrip()) :]
            sessions.append((command, self.answers.pop(block.line, shown).rstrip() + space))
        text = "".join(f"$ {command}\n{shown}" for command, shown in sessions)
        if text != block.text:
            self.answers[block.line] = text

    def _compare(self, block: Block) -> str:
        """Compares the first block of each language after a command, under the same heading."""
        kind = "text" if block.language in OUTPUT else block.language
        if (
            not self._answer
            or block.section != self._answer_section
            or kind in self._compared | {"yaml", "toml", "ini"}
        ):
            return "read"
        self._compared.add(kind)
        if "not compared" in block.marks:
            return "read"
        try:
            if self._refresh:
                current = refresh(block.language, block.text, self._with_page_ports(self._answer))
                if current != block.text:
                    self.answers[block.line] = current
                return "compared"
            compare(block.language, block.text, self._answer)
        except Differs as error:
            raise Failed(str(error)) from None
        return "compared"

    def _command(self, language: str, text: str) -> list[str]:
        text = self._with_real_ports(text)
        program = "python" if language in PYTHON else "node" if language in JAVASCRIPT else None
        if program:
            script = self._folder / (".block.py" if program == "python" else ".block.mjs")
            script.write_text(text)
            text = f"{program} '{script}'"
        # The blocks of a page share one shell: a block has the variables and the directory of the one before.
        preamble = [
            "set -eua -o pipefail",
            ". ./.state",
            'cd "${HERE:-.}"',
            'trap \'HERE=$PWD; export -p | grep -v " EXPRESSNET_PORT=" > "$STATE"\' EXIT',
        ]
        return ["bash", "-c", "\n".join([*preamble, text])]

    def _environment(self) -> dict[str, str]:
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("EXPRESSNET_")}
        own = {
            "PATH": programs,
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "default",
            "HOME": str(self._folder),
            "STATE": str(self._folder / ".state"),
            "KEY": KEY,
            # Without this, the tests would measure the coverage of each program.
            "COVERAGE_PROCESS_CONFIG": "",
            # The port of other services that a block starts, because 8000 may be in use.
            "EXPRESSNET_PORT": str(self._free_port),
        }
        return inherited | own

    def _with_real_ports(self, text: str) -> str:
        """The text with the real ports instead of the ports on the page."""
        for on_page, real in self._ports.items():
            text = re.sub(rf"(?<=[: =]){on_page}\b", str(real), text)
        return text

    def _with_page_ports(self, text: str) -> str:
        """The text with the ports on the page instead of the real ports."""
        for on_page, real in self._ports.items():
            text = re.sub(rf"(?:(?<=\.1:)|(?<=port )){real}\b", str(on_page), text)
        return text

    def _service(self, settings: str) -> int:
        """The port of a service with these settings. Blocks with the same settings share one service."""
        if settings not in self._services:
            self._serve(f"{settings} expressnet serve", PORT)
            self._services[settings] = self._ports[PORT]
        return self._services[settings]

    def _serve(self, text: str, port: int) -> None:
        self._ports[port] = free_port()
        environment = self._environment() | {"EXPRESSNET_PORT": str(self._ports[port])}
        log = self._folder / f".log-{port}"
        with log.open("wb") as file:
            process = subprocess.Popen(
                self._command("sh", text),
                cwd=self._folder,
                env=environment,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self._processes.append(process)
        deadline = time.monotonic() + LIMIT_S
        while not _listens(self._ports[port]):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"nothing listens on the port:\n{log.read_text()}")
            time.sleep(0.05)


def _port_served(block: Block) -> int | None:
    """The port of the service that the block starts, or None if the block ends by itself."""
    if "serves" in block.marks:
        return int(block.marks["serves"])
    serves = re.search(r"^(\w+=\S+ +)*expressnet serve( --?\S+ \S+)*\s*\Z", block.text, re.MULTILINE)
    if block.language not in SHELL or not serves or "exit" in block.marks:
        return None
    stated = re.search(r"(?:EXPRESSNET_PORT=|--port )(\d+)", block.text)
    return int(stated[1]) if stated else PORT


HOW_TO_MARK = "if it cannot run on a test machine, write <!-- not run: WHY --> on the line before it"


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def missing_programs(blocks: list[Block]) -> list[str]:
    """The programs that the blocks need, and that are neither installed nor Python packages."""
    text = "\n".join(
        block.text for block in blocks if "not run" not in block.marks and block.language in SHELL
    )
    named = {program for program in ("curl", "jq", "openssl", "node") if re.search(rf"\b{program}\b", text)}
    if any(block.language in JAVASCRIPT and not block.marks.keys() & {"not run", "file"} for block in blocks):
        named.add("node")
    return sorted(program for program in named if shutil.which(program) is None)
