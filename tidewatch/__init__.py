"""The front door: command line, settings and the local stack."""
