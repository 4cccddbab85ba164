"""Attacks: pure functions of (model, images, labels, parameters), and the one harness that judges their results."""
