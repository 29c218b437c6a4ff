"""One run looked at: its measures, its classes, its mistakes, as a page or a short text."""
