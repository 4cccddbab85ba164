"""Architectures by name. This module does not import torch, so that suites can be checked without it."""
