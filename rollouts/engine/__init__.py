"""The sampling engine: many dialogues in the slots of one batch."""
