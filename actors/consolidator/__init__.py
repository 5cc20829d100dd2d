"""The night's work: when it is due, and who may do it. The work itself runs in a training process."""
