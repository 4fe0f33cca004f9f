"""Engines that somebody else runs, reached over HTTP at token level: prompts go out as token ids, text comes back."""
