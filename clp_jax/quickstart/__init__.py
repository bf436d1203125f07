"""The whole method in minutes on two CPU cores, on text about a small made-up world."""
