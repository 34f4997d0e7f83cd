-- What two people let an identity do for half an hour at most. No change of one concerns a node.
CREATE TABLE emergencies (
    id          TEXT    NOT NULL PRIMARY KEY,
    identity    TEXT    NOT NULL REFERENCES identities (spiffe_id) DEFERRABLE INITIALLY DEFERRED,
    owner       TEXT    NOT NULL,
    stop_number INTEGER NOT NULL,
    action      TEXT    NOT NULL,
    resource    TEXT    NOT NULL,
    why         TEXT    NOT NULL,
    asked_by    TEXT    NOT NULL,
    asked_at    INTEGER NOT NULL,
    lasts       INTEGER NOT NULL CHECK (lasts BETWEEN 1 AND 1800), -- seconds
    agreed_by   TEXT    CHECK (agreed_by <> asked_by),
    agreed_at   INTEGER CHECK ((agreed_at IS NULL) = (agreed_by IS NULL)),
    ends_at     INTEGER NOT NULL CHECK (ends_at <= CASE WHEN agreed_at IS NULL THEN asked_at + 600000
                                                        ELSE agreed_at + lasts * 1000 END),
    ended_by    TEXT,
    ended_at    INTEGER CHECK ((ended_at IS NULL) = (ended_by IS NULL))
) STRICT;

CREATE TRIGGER an_emergency_is_never_widened BEFORE UPDATE ON emergencies
WHEN new.identity <> old.identity OR new.owner <> old.owner OR new.stop_number <> old.stop_number
    OR new.action <> old.action OR new.resource <> old.resource OR new.why <> old.why
    OR new.asked_by <> old.asked_by OR new.asked_at <> old.asked_at OR new.lasts <> old.lasts
    OR (old.agreed_by IS NOT NULL AND (new.agreed_by IS NOT old.agreed_by OR new.agreed_at IS NOT old.agreed_at))
    OR (new.ends_at > old.ends_at AND (old.agreed_by IS NOT NULL OR new.agreed_by IS NULL))
BEGIN SELECT RAISE(ABORT, 'an emergency is never widened'); END;

CREATE TRIGGER an_emergency_that_was_ended_stays_so BEFORE UPDATE ON emergencies
WHEN old.ended_by IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'an emergency that was ended never changes'); END;
