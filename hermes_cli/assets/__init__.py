"""Files that ship with hermes: the demo model and its tools."""
