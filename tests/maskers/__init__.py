"""Broken defences around a plain model, and honest models: what the audit has to tell apart."""
