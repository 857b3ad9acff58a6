"""Tracing one evaluation of a loss: its layers and layer pairs, reads of parameters, ownership of storage."""
