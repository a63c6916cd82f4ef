"""The command that serves the embedded endpoint of `rollouts.domains.fds.embedded`."""
