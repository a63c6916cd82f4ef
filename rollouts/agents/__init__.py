"""Agents: the policy, or an endpoint."""
