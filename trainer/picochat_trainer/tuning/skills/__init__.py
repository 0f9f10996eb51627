"""The five release skills, one module each: an endless, seeded stream of questions for SFT or for the eval."""
