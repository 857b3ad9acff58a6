"""Data sets: where they are published, how they are fetched and stored, and the tasks made of them."""
