"""The commands of the command line, a file for each kind. Each imports what it needs when it runs."""
