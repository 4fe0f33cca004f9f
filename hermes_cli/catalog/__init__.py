"""What models exist and how they are named."""
