-- How the last stop of an identity went, or the last drill of one.
ALTER TABLE identities ADD COLUMN stop_tried_at  INTEGER;
ALTER TABLE identities ADD COLUMN stop_nodes     INTEGER CHECK ((stop_nodes IS NULL) = (stop_tried_at IS NULL));
ALTER TABLE identities ADD COLUMN stop_confirmed INTEGER CHECK (stop_confirmed BETWEEN 0 AND stop_nodes);
ALTER TABLE identities ADD COLUMN stop_took_ms   INTEGER CHECK ((stop_took_ms IS NULL) = (stop_tried_at IS NULL));
