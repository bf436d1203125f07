"""CLP-Transfer in JAX."""
