"""Training records: their formats on disk, and how the small world is turned into them."""
