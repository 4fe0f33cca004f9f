"""What a GGUF file says about itself, read without trusting it."""
