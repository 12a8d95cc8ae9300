"""Older stores to the newest format, inside the transaction that rebuilds their indexes: a crash leaves the old one whole.

Format 1 had no numbers for documents and no fields, and its rows were positions in segments. Its segments are not read:
`collections rebuild` makes the index files again from the chunks, which are kept as they are.
"""

from __future__ import annotations

import sqlite3

from indexers import fields, store


def upgrade(db: sqlite3.Connection) -> None:
    """Does nothing to a store of the newest format. Call inside a transaction."""
    if store.format_of(db) == 1:
        _from_1(db)


def _from_1(db: sqlite3.Connection) -> None:
    for index in ("documents_by_file", "documents_by_source", "chunks_by_document"):
        db.execute(f"DROP INDEX {index}")
    for table in ("segments", "tombstones"):
        db.execute(f"DROP TABLE {table}")
    for table in ("files", "documents", "chunks"):
        db.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
    for statement in filter(str.strip, store.TABLES.split(";")):
        db.execute(statement)
    db.execute("INSERT INTO files SELECT uri, content_hash, 0, 0, 0, 0 FROM old_files")
    db.execute("""INSERT INTO documents SELECT row_number() OVER (ORDER BY added, id) - 1, id, file, source, uri, title,
        media_type, language, content_hash, text, metadata, tokens, added FROM old_documents""")
    db.execute("""INSERT INTO chunks SELECT c.row, c.id, d.number, c.ordinal, c.text, c.start, c.sentences, c.tokens, c.heading,
        c.page, c.content_hash FROM old_chunks c JOIN documents d ON d.id = c.doc_id""")
    for number, *record in db.execute(
            f"SELECT number, {store.FIELD_COLUMNS} FROM documents").fetchall():
        db.executemany("INSERT INTO fields VALUES (?, ?, ?, ?)",
                       [(*made, number) for made in fields.rows_of(store.stored_fields(*record))])
    for table in ("files", "documents", "chunks"):
        db.execute(f"DROP TABLE old_{table}")
    count = db.execute("SELECT count(*) FROM documents").fetchone()[0]
    db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", [("format", str(store.FORMAT)), ("next_document", str(count))])

