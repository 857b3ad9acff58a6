"""What one evaluation of a loss shows: layers, reads, ownership of memory."""
