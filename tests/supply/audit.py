"""Part of `make check`: known vulnerabilities of the pinned packages, where the database can be had."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMAND = (
    *(sys.executable, "-m", "pip_audit", "--requirement", str(ROOT / "constraints.txt")),
    *("--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off"),
)


def verdict(report: str, error: str) -> tuple[str, bool]:
    """What to tell of pip-audit's output, and whether nothing was found. No database is no finding."""
    try:
        packages = json.loads(report)["dependencies"]
    except (ValueError, KeyError):
        reason = (error.strip().splitlines() or ["no output"])[-1]
        return f"audit: not done, the database of vulnerabilities cannot be had ({reason[:200]})", True
    audited = [package for package in packages if "vulns" in package]
    if not audited:
        return "audit: not done, the database of vulnerabilities knows none of these packages", True
    found = [
        f"{package['name']} {package['version']}: {flaw['id']}, fixed in {', '.join(flaw['fix_versions'])}"
        for package in audited
        for flaw in package["vulns"]
    ]
    summary = f"audit: {len(audited)} of {len(packages)} packages looked up, {len(found)} vulnerabilities"
    return "\n".join([summary, *found]), not found


def main() -> None:
    done = subprocess.run(COMMAND, capture_output=True, text=True)
    told, sound = verdict(done.stdout, done.stderr)
    print(told)
    sys.exit(0 if sound else 1)


if __name__ == "__main__":
    main()
