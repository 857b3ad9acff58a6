"""Where a model stands on its orbit: tangent space, balance, least norm, sharpness, and the drift of a training."""
