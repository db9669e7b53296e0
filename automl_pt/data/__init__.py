"""A study's data: found, split once, decoded once, made into batches."""
