"""The daemon as its users meet it: real processes, sockets, signals and kills."""
