"""The forecaster's shell: files, engines, processes around ``scorers.forecast``."""
