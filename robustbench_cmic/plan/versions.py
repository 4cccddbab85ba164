"""Versions that are part of what cells declare: a change that alters results raises one of them."""

SUBSET = "ordered by splitmix64 of the index; version 1"
"""How `subset.choose` chooses examples; part of every evaluation's declaration."""

TRAINING = 1
"""Of what a training makes of its declaration; a change that gives other weights raises it."""

AUDIT = 3
"""Of the facts that an audit collects; a change to any of them raises it."""

EVALUATION = "block 256; projected onto ball and box; float32 argmax; clean errors count; version 4"
"""The decision rule of `attacks.harness`, and the version of it, of the native attacks and of their random numbers.

It is part of every attack cell's hash: a change to any of these raises the version, and no old result is taken for new.
"""
