-- On which day since 1970 each identity was used last, as far as nodes have told; and since when (Unix milliseconds) they are asked.
CREATE TABLE uses (
    spiffe_id TEXT    NOT NULL PRIMARY KEY,
    day       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- Nodes that tell what is used there, and on which day they did last.
CREATE TABLE use_tellers (
    node TEXT    NOT NULL PRIMARY KEY,
    day  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX uses_by_day ON uses (day);
ALTER TABLE meta ADD COLUMN uses_since INTEGER NOT NULL DEFAULT 0;
