"""CLP-Transfer: a new embedding table from a source model's rows and a helper's similarities."""
