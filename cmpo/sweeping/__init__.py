"""Many runs of one grid: what they are, in which order, and what came of them."""
