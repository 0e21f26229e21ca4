-- Whether the run that wrote the output ended with all of it committed: what stands behind its length is somebody else's.
ALTER TABLE outputs ADD COLUMN is_closed INTEGER NOT NULL DEFAULT 0 CHECK (is_closed IN (0, 1));
