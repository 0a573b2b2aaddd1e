"""The humanpose command: its options, its verbs and the live window."""
