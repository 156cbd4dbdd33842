"""Training from an empty folder: the autoencoder, then the transformer with its text encoder."""
