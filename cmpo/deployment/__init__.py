"""A policy in use: what it gives is held against its budget."""
