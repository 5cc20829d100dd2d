"""From a file dropped into the inbox to a job: settled, validated, handed over."""
