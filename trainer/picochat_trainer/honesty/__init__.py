"""What trains, what judges and what was generated, compared with each other."""
