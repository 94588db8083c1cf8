"""Who works when: one thread owns the model and gives every job its turns."""
