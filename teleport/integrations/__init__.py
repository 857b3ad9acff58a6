"""Teleports in the trainers of others: Lightning, the Trainer of transformers, and loops under Accelerate.

Each module needs the package that it is named after; ``import teleport`` loads none of them.
"""
