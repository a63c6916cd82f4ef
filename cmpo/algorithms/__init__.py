"""What is learnt from dialogues, an algorithm a file."""
