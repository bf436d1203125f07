"""Files and data sets of the hub, read as documents."""
