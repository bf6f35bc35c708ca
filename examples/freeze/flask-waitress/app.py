"""Flask with a template, on waitress."""

from __future__ import annotations

from flask import Flask, Response, jsonify, render_template, session

app = Flask(__name__)
app.secret_key = "an example has nothing to hide"


@app.get("/")
def index() -> Response:
    """Say who this is."""
    return jsonify(service="flask-waitress")


@app.get("/health")
def health() -> Response:
    """Say that it lives."""
    return jsonify(status="ok")


@app.get("/page/<name>")
def page(name: str) -> str:
    """Render a template, and a signed cookie."""
    session["name"] = name
    return render_template("page.html", name=name)


@app.get("/fails")
def fails() -> str:
    """Fail."""
    raise RuntimeError
