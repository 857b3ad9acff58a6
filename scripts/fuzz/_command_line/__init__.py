"""Parts of the fuzzer of the command line."""
