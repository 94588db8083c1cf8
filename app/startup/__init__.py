"""What comes before the model: versions, address, folders, surroundings. Imports nothing heavy."""
