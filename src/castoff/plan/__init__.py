"""The plan of a build: which stages a target needs, and the steps that each of them takes."""
