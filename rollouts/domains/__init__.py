"""The worlds that an agent may work in, a folder each."""
