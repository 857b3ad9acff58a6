"""The quiver of a network: which channels may carry which factor."""
