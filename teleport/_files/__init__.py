"""Files of tensors: written whole and with a checksum, read without running code, loaded all or nothing."""
