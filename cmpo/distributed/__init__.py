"""Many devices and many processes: the mesh, how arrays are placed on it, and shared work."""
