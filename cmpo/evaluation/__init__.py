"""What an evaluation measures, how sure it is, and the files that it writes."""
