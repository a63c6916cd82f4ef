"""Who serves the customers: the policy, or an endpoint."""
