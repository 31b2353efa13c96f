"""Event to window to score to alert: a pure core inside a Faust shell."""
