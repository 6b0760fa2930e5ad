"""Values that people write and that emb tells them: frozen, light to import, without behaviour of their own."""
