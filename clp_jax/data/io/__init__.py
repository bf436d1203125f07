"""Reading documents from files and hub data sets."""
