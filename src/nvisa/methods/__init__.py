"""One method, one file. No method imports another."""
