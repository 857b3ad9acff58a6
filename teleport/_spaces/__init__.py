"""What layer inputs span, norms over many tensors, and the precision of products."""
