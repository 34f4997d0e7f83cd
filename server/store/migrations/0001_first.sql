-- The first schema. Times are milliseconds since the Unix epoch; lists are JSON arrays; flags are 0 or 1.
-- A migration is never edited once released: the next change is the next file.

PRAGMA application_id = 1096175445; -- "AVOU": tells our files from those of other programs

-- One row: its lock orders all writes.
CREATE TABLE meta (
    id            INTEGER PRIMARY KEY CHECK (id = 1),
    schema        INTEGER NOT NULL,
    epoch_started INTEGER NOT NULL,
    epoch_random  INTEGER NOT NULL,
    revision      INTEGER NOT NULL,
    head          BLOB    NOT NULL CHECK (length(head) = 32)
) STRICT;

-- Without row numbers, which would need a second tree for the IDs: a commit then writes one page less.
CREATE TABLE entries (
    id                         TEXT    NOT NULL PRIMARY KEY,
    spiffe_id                  TEXT    NOT NULL,
    parent_id                  TEXT    NOT NULL,
    selectors                  TEXT    NOT NULL,
    x509_svid_ttl              INTEGER NOT NULL,
    jwt_svid_ttl               INTEGER NOT NULL,
    federates_with             TEXT    NOT NULL,
    admin                      INTEGER NOT NULL,
    downstream                 INTEGER NOT NULL,
    expires_at                 INTEGER,
    dns_names                  TEXT    NOT NULL,
    store_svid                 INTEGER NOT NULL,
    hint                       TEXT    NOT NULL,
    disable_x509_svid_prefetch INTEGER NOT NULL,
    jwt_svid_include_jti       INTEGER NOT NULL,
    revision_number            INTEGER NOT NULL,
    created_at                 INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE nodes (
    id               TEXT    NOT NULL PRIMARY KEY,
    attestation_type TEXT    NOT NULL,
    serial           TEXT,    -- NULL: banned
    expires_at       INTEGER NOT NULL,
    new_serial       TEXT,
    new_expires_at   INTEGER,
    selectors        TEXT    NOT NULL,
    can_reattest     INTEGER NOT NULL,
    agent_version    TEXT    NOT NULL
) STRICT;

CREATE TABLE bundles (
    trust_domain     TEXT    NOT NULL PRIMARY KEY,
    x509_authorities TEXT    NOT NULL,
    jwt_authorities  TEXT    NOT NULL,
    refresh_hint     INTEGER NOT NULL,
    sequence_number  INTEGER NOT NULL
) STRICT;

CREATE TABLE join_tokens (
    digest     BLOB    NOT NULL PRIMARY KEY CHECK (length(digest) = 32), -- SHA-256 of the text, which is not kept
    expires_at INTEGER NOT NULL
) STRICT;

CREATE TABLE authorities (
    kind         TEXT    NOT NULL,
    holder       TEXT    NOT NULL, -- 'domain', or 'server:' and the server's name
    slot         TEXT    NOT NULL,
    state        TEXT    NOT NULL,
    id           TEXT    NOT NULL,
    public       BLOB    NOT NULL,
    issued_at    INTEGER NOT NULL,
    not_after    INTEGER NOT NULL,
    tainted      INTEGER NOT NULL,
    published_at INTEGER,
    PRIMARY KEY (kind, holder, slot)
) STRICT;

-- What happened, in order; the oldest rows are pruned by the writer.
CREATE TABLE changes (
    seq           INTEGER PRIMARY KEY,
    revision      INTEGER NOT NULL,
    kind          INTEGER NOT NULL,
    key           TEXT    NOT NULL,
    deleted       INTEGER NOT NULL,
    parent_before TEXT,
    parent_after  TEXT,
    content       BLOB,             -- SHA-256 of the row that was put; NULL: deleted
    head          BLOB    NOT NULL CHECK (length(head) = 32)
) STRICT;
CREATE INDEX changes_by_revision ON changes (revision);

-- The log: each line holds the hash of the one before. The newest row is never pruned.
CREATE TABLE records (
    seq  INTEGER PRIMARY KEY,
    line TEXT    NOT NULL,
    hash BLOB    NOT NULL CHECK (length(hash) = 32)
) STRICT;

-- Signed statements "record seq has this hash".
CREATE TABLE record_heads (
    seq       INTEGER PRIMARY KEY,
    hash      BLOB    NOT NULL CHECK (length(hash) = 32),
    at        INTEGER NOT NULL,
    key       BLOB    NOT NULL,
    signature BLOB    NOT NULL
) STRICT;

-- Chains of records that nodes send. `number` orders them by their beginning.
CREATE TABLE node_chains (
    number    INTEGER PRIMARY KEY AUTOINCREMENT,
    source    TEXT    NOT NULL, -- SPIFFE ID of the node agent
    chain     TEXT    NOT NULL,
    seq       INTEGER NOT NULL CHECK (seq >= 0), -- of the last record
    hash      BLOB    NOT NULL CHECK (length(hash) = 32),
    began_at  INTEGER NOT NULL,
    findings  INTEGER NOT NULL, -- gaps and conflicts that the log tells of
    UNIQUE (source, chain)
) STRICT;

CREATE TRIGGER chains_never_go_back BEFORE UPDATE ON node_chains
WHEN new.seq < old.seq
BEGIN SELECT RAISE(ABORT, 'a chain of records never goes back'); END;

CREATE TABLE node_records (
    number INTEGER NOT NULL REFERENCES node_chains (number),
    seq    INTEGER NOT NULL,
    line   TEXT    NOT NULL,
    PRIMARY KEY (number, seq)
) STRICT, WITHOUT ROWID;

-- Statements "record seq of this chain has this hash", signed by the node and received by the server.
CREATE TABLE node_heads (
    number      INTEGER NOT NULL REFERENCES node_chains (number),
    seq         INTEGER NOT NULL,
    hash        BLOB    NOT NULL CHECK (length(hash) = 32),
    at          INTEGER NOT NULL,
    certificate BLOB    NOT NULL,
    signature   BLOB    NOT NULL,
    key         BLOB    NOT NULL,
    receipt     BLOB    NOT NULL,
    PRIMARY KEY (number, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE people (
    id       TEXT    NOT NULL PRIMARY KEY,
    name     TEXT    NOT NULL,
    uid      INTEGER UNIQUE,
    security INTEGER NOT NULL,
    state    TEXT    NOT NULL CHECK (state IN ('proposed', 'active', 'left')),
    added_by TEXT,
    yes_by   TEXT,
    added_at INTEGER NOT NULL,
    CHECK (yes_by IS NULL OR added_by IS NOT NULL)
) STRICT;

-- An owner and an end always; an active one has a yes or was adopted.
CREATE TABLE identities (
    spiffe_id   TEXT    NOT NULL PRIMARY KEY,
    kind        TEXT    NOT NULL,
    environment TEXT    NOT NULL,
    purpose     TEXT    NOT NULL,
    owner       TEXT    NOT NULL REFERENCES people (id) DEFERRABLE INITIALLY DEFERRED,
    successor   TEXT    CHECK (successor <> owner),
    ends_at     INTEGER NOT NULL,
    standing    TEXT    NOT NULL CHECK (standing IN ('proposed', 'active', 'paused', 'stopped')),
    cause       TEXT    CHECK ((cause IS NULL) = (standing IN ('proposed', 'active'))),
    stop_number INTEGER NOT NULL CHECK (stop_number >= 0),
    added_by    TEXT    NOT NULL,
    added_at    INTEGER NOT NULL,
    yes_by      TEXT,
    confirm_by  INTEGER,
    preset      TEXT
) STRICT;

CREATE TRIGGER identities_keep_their_environment BEFORE UPDATE ON identities
WHEN new.environment <> old.environment
BEGIN SELECT RAISE(ABORT, 'the environment of an identity never changes'); END;

CREATE TRIGGER stop_numbers_never_fall BEFORE UPDATE ON identities
WHEN new.stop_number < old.stop_number
BEGIN SELECT RAISE(ABORT, 'the stop number of an identity never falls'); END;

CREATE TRIGGER stops_are_final BEFORE UPDATE ON identities
WHEN old.standing = 'stopped' AND new.standing <> 'stopped'
BEGIN SELECT RAISE(ABORT, 'a stopped identity stays stopped'); END;

-- Published rules; the approved ones with the highest number are in force.
CREATE TABLE rules (
    number       INTEGER PRIMARY KEY CHECK (number >= 1),
    digest       BLOB    NOT NULL CHECK (length(digest) = 32), -- of the folder
    note         TEXT    NOT NULL,
    standing     TEXT    NOT NULL CHECK (standing IN ('proposed', 'approved', 'withdrawn')),
    published_by TEXT    NOT NULL REFERENCES people (id) DEFERRABLE INITIALLY DEFERRED,
    published_at INTEGER NOT NULL,
    yes_by       TEXT    CHECK ((yes_by IS NOT NULL) = (standing = 'approved')),
    valid_from   INTEGER CHECK ((valid_from IS NOT NULL) = (standing = 'approved'))
) STRICT;

-- Their texts: a JSON array of [name, text], ascending by name. The oldest are dropped.
CREATE TABLE rules_folders (
    digest BLOB NOT NULL PRIMARY KEY CHECK (length(digest) = 32),
    files  TEXT NOT NULL
) STRICT;

CREATE TRIGGER numbers_of_rules_rise BEFORE INSERT ON rules
WHEN new.number < (SELECT max(number) FROM rules) AND NOT EXISTS (SELECT 1 FROM rules WHERE number = new.number)
BEGIN SELECT RAISE(ABORT, 'the number of rules never falls'); END;

CREATE TRIGGER published_rules_stay BEFORE DELETE ON rules
BEGIN SELECT RAISE(ABORT, 'published rules are never deleted'); END;

CREATE TRIGGER published_rules_keep_their_content BEFORE UPDATE ON rules
WHEN new.digest <> old.digest OR new.published_by <> old.published_by OR new.published_at <> old.published_at
    OR (old.standing <> 'proposed' AND (new.standing <> old.standing OR new.yes_by IS NOT old.yes_by))
BEGIN SELECT RAISE(ABORT, 'published rules never change'); END;

CREATE TRIGGER rules_in_force_never_fall BEFORE UPDATE ON rules
WHEN new.standing = 'approved' AND old.standing <> 'approved'
    AND new.number < (SELECT max(number) FROM rules WHERE standing = 'approved')
BEGIN SELECT RAISE(ABORT, 'the number of the rules in force never falls'); END;
