"""What a model needs, computed before anything is loaded: pure functions, numbers in and numbers out."""
