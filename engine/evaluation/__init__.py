"""What a test measures, and what it keeps of each answer."""
