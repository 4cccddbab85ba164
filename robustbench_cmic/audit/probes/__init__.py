"""Probes: what of a trained model decides whether attacks on it can succeed; `audit` judges what they find."""
