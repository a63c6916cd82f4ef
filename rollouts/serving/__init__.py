"""Our servers: the guard before all of them, and a policy behind the OpenAI protocol."""
