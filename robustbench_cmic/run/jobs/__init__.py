"""What is done for one cell of a plan: a training, the loading of given weights, an attack."""
