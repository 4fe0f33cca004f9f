"""Files of models: on the Hub and on this disk."""
