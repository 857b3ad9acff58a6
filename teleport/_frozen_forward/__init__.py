"""The gradient norm as a function of the weights, with the forward pass frozen as recorded."""
