"""What runs and results look like."""
