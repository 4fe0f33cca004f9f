"""What a model may call: functions of a Python file, tools of MCP servers, and whether the user allows it."""
