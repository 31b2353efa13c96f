"""Scores over HTTP and gRPC: a thin layer over the scorers, and what sinks have kept."""
