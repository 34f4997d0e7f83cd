-- What something lacks and somebody accepts until a moment: the name need not be an identity's. No change of one concerns a node.
CREATE TABLE accepted (
    name        TEXT    NOT NULL,
    what        TEXT    NOT NULL CHECK (what IN ('owner', 'confirmed', 'stop')),
    until       INTEGER NOT NULL,
    why         TEXT    NOT NULL,
    accepted_by TEXT    NOT NULL,
    accepted_at INTEGER NOT NULL,
    PRIMARY KEY (name, what)
) STRICT;
