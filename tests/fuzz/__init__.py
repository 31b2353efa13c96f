"""Bytes nobody thought of, against everything that reads bytes: ``python -m tests.fuzz``."""
