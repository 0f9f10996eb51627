"""SFT and eval rows: their files, their skill groups, and the generator of release-skill rows."""
