"""Where a model's weights lie and in which precision, and how several processes share the work."""
