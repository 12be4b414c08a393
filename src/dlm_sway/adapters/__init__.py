"""Adapter files on disk: read, checked, measured and turned into nulls, without torch and without pickle."""
