"""Data sets: published files and checksums, download and storage, and the tasks built from them."""
