-- 1 if the run that wrote the output ended with all of it committed: another program wrote what follows after its length.
ALTER TABLE outputs ADD COLUMN is_closed INTEGER NOT NULL DEFAULT 0 CHECK (is_closed IN (0, 1));
