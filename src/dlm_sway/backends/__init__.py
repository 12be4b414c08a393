"""Where models come from: one file a backend, heavy imports inside."""
