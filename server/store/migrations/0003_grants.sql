-- What somebody gave an identity for a time and a number of uses. No change of one concerns a node.
CREATE TABLE grants (
    id          TEXT    NOT NULL PRIMARY KEY,
    identity    TEXT    NOT NULL REFERENCES identities (spiffe_id) DEFERRABLE INITIALLY DEFERRED,
    owner       TEXT    NOT NULL,
    stop_number INTEGER NOT NULL,
    action      TEXT    NOT NULL,
    resource    TEXT    NOT NULL,
    given_by    TEXT    NOT NULL,
    given_at    INTEGER NOT NULL,
    ends_at     INTEGER NOT NULL,
    max_uses    INTEGER NOT NULL CHECK (max_uses > 0),
    uses        INTEGER NOT NULL CHECK (uses BETWEEN 0 AND max_uses),
    keys        BLOB    NOT NULL CHECK (length(keys) % 24 = 0), -- of the newest uses: 16 bytes and their moment
    ended_by    TEXT,
    ended_at    INTEGER CHECK ((ended_at IS NULL) = (ended_by IS NULL))
) STRICT;

CREATE TRIGGER a_grant_is_never_widened BEFORE UPDATE ON grants
WHEN new.identity <> old.identity OR new.owner <> old.owner OR new.stop_number <> old.stop_number
    OR new.action <> old.action OR new.resource <> old.resource OR new.given_by <> old.given_by
    OR new.given_at <> old.given_at OR new.ends_at > old.ends_at OR new.max_uses > old.max_uses
    OR new.uses < old.uses
BEGIN SELECT RAISE(ABORT, 'a grant is never widened, and no use of it comes back'); END;

CREATE TRIGGER what_was_taken_back_stays_so BEFORE UPDATE ON grants
WHEN old.ended_by IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'a grant that was taken back never changes'); END;
