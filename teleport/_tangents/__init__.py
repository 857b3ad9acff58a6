"""Hessian-vector products at the memory of a training step: tangents carried below autograd, then one backward pass."""
