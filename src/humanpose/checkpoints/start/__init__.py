"""Read networks of other projects from which a training starts."""
