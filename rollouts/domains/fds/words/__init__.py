"""Banks of phrasings and names, as text files, and what reads them. `bank` says how the files are written."""
