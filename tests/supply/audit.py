"""Part of `make check`: looks up known vulnerabilities of the pinned packages, if the database answers."""

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


def summarise(report: str, error: str) -> tuple[str, bool]:
    """Summarise pip-audit's report. Returns the summary, and whether the check passes.

    The check also passes if the database is not available.
    """
    try:
        packages = json.loads(report)["dependencies"]
    except (ValueError, KeyError):
        reason = (error.strip().splitlines() or ["no output"])[-1]
        return f"audit: not done, the vulnerability database is not available ({reason[:200]})", True
    audited = [package for package in packages if "vulns" in package]
    if not audited:
        return "audit: not done, the vulnerability database has none of these packages", True
    vulnerabilities = [
        f"{package['name']} {package['version']}: {found['id']}, fixed in {', '.join(found['fix_versions'])}"
        for package in audited
        for found in package["vulns"]
    ]
    counts = f"{len(audited)} of {len(packages)} packages looked up, {len(vulnerabilities)} vulnerabilities"
    return "\n".join([f"audit: {counts}", *vulnerabilities]), not vulnerabilities


def main() -> None:
    done = subprocess.run(COMMAND, capture_output=True, text=True)
    summary, ok = summarise(done.stdout, done.stderr)
    print(summary)
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
