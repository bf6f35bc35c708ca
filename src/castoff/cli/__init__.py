"""The command line: arguments, terminals, exit codes."""
