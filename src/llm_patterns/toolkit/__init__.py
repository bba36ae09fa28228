"""The shared utilities of the patterns: cost tracker."""
