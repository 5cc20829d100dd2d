"""Modules that a process host is told to import in advance, most of them with a fault."""
