"""Watching a run: events, their log, bars, curves, estimates and `status`."""
