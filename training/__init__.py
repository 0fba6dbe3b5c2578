"""Everything that makes the weights: phantoms, networks, training, evaluation, export."""
