"""Checks the syntax of a block, and that its commands exist."""

from __future__ import annotations

import ast
import configparser
import csv
import json
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from tempfile import NamedTemporaryFile
from typing import Any

import typer
import yaml

from service.cli import app
from tests.docs.blocks import ROOT
from training.cli import app as training_app

SHELL = {"sh", "bash", "shell"}
PYTHON = {"python", "py"}
JAVASCRIPT = {"js", "javascript", "mjs"}
OUTPUT = {"", "text", "console", "http"}


def check_syntax(language: str, text: str) -> None:
    """Raises `ValueError`, or the error of the parser of the language."""
    reader = _READERS.get(language)
    if reader is None:
        raise ValueError(f"nothing here reads {language!r}; add it to tests/docs/syntax.py")
    reader(text)


def _shell(text: str) -> None:
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(done.stderr)
    for words in _commands(text):
        _check_command(words)


def _commands(text: str) -> Iterator[list[str]]:
    """The words of every simple command, without the variables that are set before it."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        try:
            words = list(lexer)
        except ValueError:
            # A quotation over several lines has no command to check.
            continue
        command: list[str] = []
        for word in [*words, ";"]:
            if not set(word) <= set("();<>|&"):
                command.append(word)
                continue
            while command and re.match(r"\w+=", command[0]):
                command.pop(0)
            if command:
                yield command
            command = []


def _check_command(words: list[str]) -> None:
    """Raises `ValueError` if `make` lacks the target, or `expressnet` the command or an option."""
    name = words[0].rpartition("/")[2]
    if name == "make":
        targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
        for word in words[1:]:
            if "=" not in word and word not in targets:
                raise ValueError(f"the Makefile has no {word}")
    if name == "expressnet":
        commands = [typer.main.get_command(app), typer.main.get_command(training_app)]
        errors = [_unknown(command, words[1:]) for command in commands]
        if all(errors):
            raise ValueError("; ".join(filter(None, errors)))


def _unknown(command: Any, words: list[str]) -> str | None:
    """A message about the first command or option that does not exist."""
    known = {"--help"}
    for word in words:
        known |= {
            option for parameter in command.params for option in parameter.opts + parameter.secondary_opts
        }
        inner = getattr(command, "commands", None)
        if inner is not None and not word.startswith("-"):
            if word not in inner:
                return f"expressnet has no {word}"
            command = inner[word]
        elif word.startswith("--") and word.partition("=")[0] not in known:
            return f"expressnet {command.name} has no {word}"
    return None


def _table(text: str) -> None:
    if len({len(row) for row in csv.reader(text.splitlines())}) != 1:
        raise ValueError("the rows have different numbers of cells")


def _javascript(text: str) -> None:
    # Without node, JavaScript blocks are not run either, so the check can be skipped.
    if shutil.which("node"):
        with NamedTemporaryFile("w", suffix=".mjs") as file:
            file.write(text)
            file.flush()
            done = subprocess.run(["node", "--check", file.name], capture_output=True, text=True)
        if done.returncode:
            raise ValueError(done.stderr)


_READERS: dict[str, Callable[[str], object]] = {
    **dict.fromkeys(SHELL, _shell),
    **dict.fromkeys(PYTHON, ast.parse),
    **dict.fromkeys(JAVASCRIPT, _javascript),
    **dict.fromkeys(OUTPUT, str),
    "json": json.loads,
    "jsonl": lambda text: [json.loads(line) for line in text.splitlines()],
    "yaml": lambda text: list(yaml.parse(text, yaml.SafeLoader)),
    "toml": tomllib.loads,
    "ini": lambda text: configparser.ConfigParser().read_string(text),
    "csv": _table,
    "html": str,
}
