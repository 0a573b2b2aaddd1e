"""Pictures and videos in, annotated pictures, videos and records out."""
