"""The command line and what its verbs do."""
