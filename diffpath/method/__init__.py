"""The method: images in, features and maps out. Knows nothing of FiftyOne."""
