"""Numbers in, verdicts out: features, one-class SVMs, the packed fleet."""
