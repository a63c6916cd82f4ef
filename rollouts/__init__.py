"""Dialogues: the gym, the endpoints, the sampling engine, and play."""
