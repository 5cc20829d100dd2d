"""Public test helpers: a trainer without torch that keeps every promise of the real one."""
