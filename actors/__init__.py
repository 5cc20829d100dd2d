"""Who does the work: the seven actors, the training process, and the tree that joins them."""
