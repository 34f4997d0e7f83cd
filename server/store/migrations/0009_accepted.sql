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

-- What a grant was given for, by the name that it has elsewhere; NULL: nothing that is closed some day.
ALTER TABLE grants ADD COLUMN for_case TEXT;

CREATE TRIGGER a_grant_stays_with_its_case BEFORE UPDATE ON grants
WHEN new.for_case IS NOT old.for_case
BEGIN SELECT RAISE(ABORT, 'a grant stays with the case that it was given for'); END;
