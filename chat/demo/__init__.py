"""Believable demo data in bulk: who asks (`world`), what they say (`words`), what becomes of it (`story`) and when
(`moments`), the rows (`shapes`), and the quick way into the database (`bulk`)."""
