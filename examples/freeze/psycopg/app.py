"""psycopg with its own libpq: as far as one gets without a server."""

from __future__ import annotations

import sys

import psycopg
from psycopg import sql


def main(arguments: list[str]) -> int:
    """Compose a statement, or try to connect."""
    if arguments[:1] == ["connect"]:
        try:
            psycopg.connect("host=127.0.0.1 port=1 user=nobody connect_timeout=2 sslmode=require")
        except psycopg.OperationalError as error:
            print("refused" in str(error))
        return 0
    statement = sql.SQL("select {} from {}").format(sql.Literal(arguments[0]), sql.Identifier(arguments[1]))
    print(psycopg.pq.__impl__, statement.as_string(None))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
