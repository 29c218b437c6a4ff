"""The papers' tables: which runs they need, and what was measured beside the papers' numbers."""
