"""``make fuzz``: inputs that coverage leads to, by the million, against the decoders and against a server."""
