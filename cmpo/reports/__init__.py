"""What a run looks like: curves and pages."""
