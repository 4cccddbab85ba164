"""What is stored of a run: records with their schema, where every file lies, and how cells stand."""
