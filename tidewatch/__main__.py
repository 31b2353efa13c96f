"""``python -m tidewatch`` is the ``tidewatch`` command."""

from tidewatch.cli import main

if __name__ == "__main__":
    main()
