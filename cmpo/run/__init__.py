"""All that a run leaves on disk, and how it survives a stop."""
