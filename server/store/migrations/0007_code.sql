-- The code that runs of an identity have (SHA-256), and how many of them a node has at a time; NULL: any.
ALTER TABLE identities ADD COLUMN code BLOB CHECK (length(code) = 32);
ALTER TABLE identities ADD COLUMN runs_max INTEGER CHECK (runs_max > 0);
