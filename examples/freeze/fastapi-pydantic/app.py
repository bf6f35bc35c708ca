"""FastAPI with pydantic: models are checked by a module in Rust."""

from __future__ import annotations

from decimal import Decimal
from uuid import UUID

from fastapi import FastAPI
from pydantic import BaseModel, Field

app = FastAPI()


class Item(BaseModel):
    """Something that has a price."""

    name: str = Field(min_length=1)
    price: Decimal
    key: UUID | None = None


@app.get("/")
def index() -> dict[str, str]:
    """Say who this is."""
    return {"service": "fastapi-pydantic"}


@app.get("/health")
async def health() -> dict[str, str]:
    """Say that it lives."""
    return {"status": "ok"}


@app.post("/items")
def add(item: Item) -> Item:
    """Return what was checked."""
    return item
