"""The claims: one file a probe."""
