"""The whole method in minutes on two CPU cores, with a small world to talk about."""
