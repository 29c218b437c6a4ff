"""The config: its keys and defaults, how it is read and checked, what makes two runs the same, and plug-ins."""
