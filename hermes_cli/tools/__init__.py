"""Tools: functions of a Python file, tools of MCP servers, and the user's consent."""
