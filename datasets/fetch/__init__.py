"""How a data set's folder is filled: sources, downloads, archives."""
