"""What was done: one immutable event a fact, chained by SHA-256 so that a change shows."""
