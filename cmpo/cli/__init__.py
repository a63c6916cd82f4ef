"""What commands have in common: flags, errors in one line, and who serves the customers."""
