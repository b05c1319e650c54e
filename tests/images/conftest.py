"""Makes image_stores importable from the tests in the folders below."""
