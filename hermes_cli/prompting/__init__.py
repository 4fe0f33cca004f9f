"""Messages to prompt text, and generated text back to content, reasoning and tool calls. Knows no engine."""
