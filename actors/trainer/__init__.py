"""Training: `actor.py` is the daemon's end; all else runs in training processes."""
