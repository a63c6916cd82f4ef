"""What commands share: flags, errors in one line, and the choice of the agent."""
