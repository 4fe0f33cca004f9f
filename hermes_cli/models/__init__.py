"""From the name of a model to an engine that has it: for chat, serve and whatever else runs models."""
