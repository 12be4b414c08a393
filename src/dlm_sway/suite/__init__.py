"""Running probes together: calibration, family-wise tests, results."""
