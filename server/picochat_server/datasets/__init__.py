"""Datasets: named, versioned lists of uploaded files, and what a run spec that names one really reads."""
