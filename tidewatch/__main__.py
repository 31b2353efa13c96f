"""The ``tidewatch`` command, also as ``python -m tidewatch``."""

from tidewatch.signals import at_once


def main() -> None:
    """Run a command; see :func:`tidewatch.cli.main`."""
    at_once()
    from tidewatch.cli import main as run  # noqa: PLC0415 - a Ctrl-C meanwhile is to end it without a traceback

    run()


if __name__ == "__main__":
    main()
