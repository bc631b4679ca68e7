"""docs/reference/commands.md, from the command lines of `service/cli` and `training/cli.py`."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer

from service.cli import app
from tests.docs.blocks import ROOT
from tests.docs.reference.markdown import codes, fenced, page, plain, table
from training.cli import app as training_app

# typer adds these options.
TYPER_OPTIONS = {"install_completion", "show_completion"}


def commands_page() -> str:
    served, training = typer.main.get_command(app), typer.main.get_command(training_app)
    return page(
        "Commands",
        "Every command of `expressnet`, with its options. `expressnet COMMAND --help` shows the same.",
        "Shell completion: `expressnet --install-completion` installs it, `--show-completion` prints the "
        "script.",
        *_sections(served, ["expressnet"]),
        "## Training commands",
        "These commands need the package in `training/`: [training.md](../explanation/training.md).",
        *_sections(training, ["expressnet"], level=3),
    )


def _sections(command: Any, words: list[str], level: int = 2) -> Iterator[str]:
    if len(words) > 1:
        yield f"{'#' * level} {' '.join(words)}"
        yield plain(command.help)
    inner = getattr(command, "commands", {})
    if not inner:
        yield fenced("", _usage(command, words))
    options = [_row(each) for each in command.params if each.name not in TYPER_OPTIONS]
    if options and not (inner and len(words) > 1):
        yield table(("option", "default", "meaning"), options)
    for name, each in inner.items():
        yield from _sections(each, [*words, name], level)


def _usage(command: Any, words: list[str]) -> str:
    """The usage line. It names required options. `[OPTIONS]` means all others."""
    needed = [f"{each.opts[0]} {_metavar(each)}" for each in _options(command) if each.required]
    optional = ["[OPTIONS]"] if any(not each.required for each in _options(command)) else []
    arguments = []
    for each in command.params:
        if each.param_type_name == "argument":
            name = _metavar(each) + ("..." if each.nargs == -1 else "")
            arguments.append(name if each.required else f"[{name}]")
    return " ".join([*words, *needed, *optional, *arguments])


def _options(command: Any) -> list[Any]:
    return [each for each in command.params if each.param_type_name == "option"]


def _metavar(each: Any) -> str:
    return each.metavar or str(each.name).upper()


def _row(each: Any) -> tuple[str, str, str]:
    argument = each.param_type_name == "argument"
    names = [_metavar(each)] if argument else [*each.opts, *each.secondary_opts]
    help_text = each.help
    assert help_text, f"{each.name} has no help"
    return codes(names), _default(each), f"{help_text}{_limits(each)}"


def _default(each: Any) -> str:
    if each.required:
        return "required"
    default = each.default
    if default in (None, "") or callable(default):
        return "none"
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, Path) and default.is_absolute():
        default = default.relative_to(ROOT)
    return f"`{default}`"


def _limits(each: Any) -> str:
    annotation = each.type_descriptor.annotation
    if get_origin(annotation) is list:
        (annotation,) = get_args(annotation)
    if get_origin(annotation) is Literal:
        return f" One of {codes(get_args(annotation))}."
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return f" One of {codes(each.value for each in annotation)}."
    if each.min is not None and each.max is not None:
        return f" From {each.min:g} to {each.max:g}."
    return "" if each.min is None else f" At least {each.min:g}."
