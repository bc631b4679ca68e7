"""`python -m service` starts the gateway."""

from __future__ import annotations

from service.cli.serve import serve_command

if __name__ == "__main__":
    serve_command()
