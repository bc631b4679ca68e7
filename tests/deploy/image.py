"""Builds the images of the Dockerfile with buildah, without Docker."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

BASE = "localhost/python:3.11-slim-bookworm"
# Debian packages of the base image: Python, libraries for its wheels, and programs for the build.
PACKAGES = "python3-venv,ca-certificates,coreutils,dash,findutils,libstdc++6"


class Buildah:
    """buildah with a store of its own in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._store = ("--root", str(folder / "store"), "--runroot", str(folder / "run"))

    def command(self, *arguments: object) -> list[str]:
        return ["buildah", *self._store, *(str(argument) for argument in arguments)]

    def __call__(self, *arguments: object) -> str:
        """Run buildah and return its output. Fails if buildah fails."""
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout.strip()

    def build_base(self) -> None:
        system = self._folder / "system"
        bootstrap = [
            "mmdebstrap",
            "--quiet",
            "--variant=extract",
            f"--include={PACKAGES}",
            "bookworm",
            str(system),
        ]
        subprocess.run(bootstrap, check=True)
        (system / "usr" / "bin" / "python").symlink_to("python3.11")
        scratch = self("from", "scratch")
        self("add", scratch, system, "/")
        self("config", "--env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", scratch)
        self("commit", "--rm", scratch, BASE)
        shutil.rmtree(system)

    def build(self, checkout: Path, target: str) -> str:
        """Build the image of a target and return its name."""
        image = f"localhost/expressnet-{target}"
        # pip in the image uses the certificates of this machine and, if this machine has one, its pip.conf.
        mounted = [path for path in ("/etc/ssl/certs", "/etc/pip.conf") if Path(path).exists()]
        self(
            "bud",
            *("--isolation", "chroot", "--network", "host", "--format", "docker", "--pull-never"),
            *(part for path in mounted for part in ("--volume", f"{path}:{path}:ro")),
            *("--build-arg", f"BASE_IMAGE={BASE}", "--target", target, "--tag", image, checkout),
        )
        return image


def missing() -> str:
    """The reason why this machine cannot build images, or an empty text if it can."""
    absent = [program for program in ("buildah", "mmdebstrap") if shutil.which(program) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    return "" if os.getuid() == 0 else "buildah without containers needs root"


@contextmanager
def with_base() -> Iterator[Buildah]:
    """buildah with the base image in a store that is removed at the end."""
    with TemporaryDirectory() as folder:
        program = Buildah(Path(folder))
        try:
            program.build_base()
            yield program
        finally:
            program("rm", "--all")
            program("rmi", "--all", "--force")
