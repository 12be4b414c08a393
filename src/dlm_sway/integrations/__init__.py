"""sway inside other tools."""
