"""The models that exist, and their names."""
