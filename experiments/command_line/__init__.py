"""What ``run.py`` does around Hydra."""
