"""The papers' claims, each judged by its rule on the table of its figure."""
