"""Frames and messages as they went over the wire in each version of it, kept for ever: see README.md beside this."""
