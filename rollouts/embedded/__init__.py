"""The embedded endpoint: rules (the latent state), reading, writing, and the ASGI app around them."""
