"""Attacks: pure functions of (model, images, labels, parameters), and the one harness that judges their results.

Each returns images (N, C, H, W) in ball and box, detached, and raises `ValueError` for a parameter out of range and for
a ball that there is not.
"""
