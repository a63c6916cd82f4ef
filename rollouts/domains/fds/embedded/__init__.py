"""The embedded endpoint: its latent state, reading, writing, and the ASGI app around them."""
