"""One module per actor: what can be said to it, and what it answers."""
