"""The lab: whole runs of CMPO inside one jitted function, with a small policy in the gym without words."""
