"""`humanpose bench`: how fast and how good the networks are on this machine, and at what cost."""
