"""`humanpose live`: `session` runs source and networks, `window` shows the result."""
