"""The command line: one file a command, named as it is typed. Data on stdout, everything else on stderr."""
