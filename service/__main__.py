"""The program `expressnet`, also as `python -m service`."""

from __future__ import annotations


def main() -> None:
    try:
        from service.cli import main as run

        run()
    except KeyboardInterrupt:  # while modules load: a command handles its own
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
