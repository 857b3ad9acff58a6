"""Two networks brought together: the group element that takes one nearest to the other, and the line between them."""
