"""The queue: durable jobs, their order, their attempts, their history, and the gate."""
