"""`__main__.py` of a pack: runs all recipes at once, each in a process of its own. It needs Python alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile


def launch(pack: Path, out: Path) -> int:
    """Returns the exit status: 0 if all recipes have succeeded."""
    begun = time.time()
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ZipFile(pack).extractall(folder)
        end = begun + 60 * json.loads((folder / "plan.json").read_text())["minutes"]
        paths = [str(folder / "lib"), *filter(None, [os.environ.get("PYTHONPATH")])]

        def run(recipe: Path) -> int:
            with subprocess.Popen(
                [sys.executable, "-m", "training.packed", *map(str, (folder, out.absolute(), recipe, end))],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                cwd=folder / "lib",  # so that no checkout in the current folder is imported
            ) as process:
                for line in process.stdout or ():
                    print(f"{recipe.stem}: {line}", end="", flush=True)
            return process.returncode

        recipes = sorted((folder / "recipes").glob("*.yaml"))
        with ThreadPoolExecutor(len(recipes)) as pool:
            return max(map(abs, pool.map(run, recipes)))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: python3 {sys.argv[0]} OUT")
    sys.exit(launch(Path(sys.argv[0]), Path(sys.argv[1])))
