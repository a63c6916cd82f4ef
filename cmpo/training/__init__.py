"""The training loop: playing dialogues, packing them, and the updates."""
