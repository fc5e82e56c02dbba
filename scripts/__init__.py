"""Commands of the repository: quickstart, tests, benchmark. Not installed with the package."""
