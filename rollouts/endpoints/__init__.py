"""Models behind OpenAI-compatible endpoints: the client, its limits and budgets, and what answers mean."""
