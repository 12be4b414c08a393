"""The only place that runs the model in bulk: plan, forward, reduce."""
