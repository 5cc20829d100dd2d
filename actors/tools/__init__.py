"""Programs started by name: the demonstration, the plan, the preview."""
