"""Spans of layer inputs, norms over many tensors, and the precision of products."""
