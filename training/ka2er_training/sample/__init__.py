"""Everything the shipped sample is made of, from sources that anyone can fetch again."""
