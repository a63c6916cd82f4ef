"""Many devices and many processes: the mesh, how arrays lie on it, and work that is shared."""
