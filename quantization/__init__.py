"""Making 9B fit: what is legal, what it costs, and loading it so."""
