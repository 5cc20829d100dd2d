"""Cannot be imported: it raises."""

raise LookupError("no boiler in this ship")
