"""FastAPI with numpy: machine code with libraries of its own."""

from __future__ import annotations

import numpy as np
from fastapi import FastAPI

app = FastAPI()


@app.get("/")
def index() -> dict[str, float]:
    """Multiply matrices."""
    matrix = np.arange(64, dtype=float).reshape(8, 8) + np.eye(8)
    return {"trace": float(np.trace(matrix @ matrix.T))}


@app.get("/health")
async def health() -> dict[str, str]:
    """Say that it lives."""
    return {"status": "ok"}


@app.get("/lazy")
def lazy() -> dict[str, object]:
    """Use what is loaded at need: linear algebra, Fourier transforms, random numbers, polynomials."""
    generator = np.random.default_rng(7)
    values = np.linalg.svd(np.arange(9.0).reshape(3, 3), compute_uv=False)
    return {
        "singular": [round(float(value), 6) for value in values],
        "random": [int(value) for value in generator.integers(0, 100, 4)],
        "fourier": [round(float(abs(value)), 6) for value in np.fft.fft([1, 2, 3, 4])],
        "roots": sorted(round(float(value), 6) for value in np.polynomial.Polynomial([6, -5, 1]).roots()),
    }
