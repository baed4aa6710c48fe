"""Labels every sentence of an official statement with the stance it takes."""
