"""Report formats: one format, one file."""
