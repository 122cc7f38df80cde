"""Small modules that know nothing of the product and could serve any Django project."""
