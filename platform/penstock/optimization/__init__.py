"""Optimization as data and decisions: recipes, trials, statistics, search, verdicts. It builds and measures nothing."""
