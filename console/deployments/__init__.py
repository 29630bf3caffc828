"""A deployment's folders, and what is looked at in them."""
