-- As which account at which provider a person signs in (OpenID Connect): issuer and subject, and nobody else's.
ALTER TABLE people ADD COLUMN issuer  TEXT;
ALTER TABLE people ADD COLUMN subject TEXT CHECK ((subject IS NULL) = (issuer IS NULL));
CREATE UNIQUE INDEX people_by_sign_in ON people (issuer, subject) WHERE issuer IS NOT NULL;
