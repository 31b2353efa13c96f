"""The commands, by what they are for: up, feed, run, learn, look, tidy."""
