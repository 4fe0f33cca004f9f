"""Choose, fetch, prompt and run Nous Research's Hermes models on hardware you own."""

__version__ = "0.1.0"
