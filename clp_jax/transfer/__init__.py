"""CLP-Transfer: a source model's rows and a helper's similarities make the new embedding table."""
