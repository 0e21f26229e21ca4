-- Whether the run that wrote the output ended with all of it committed: what stands behind its length is somebody else's.
ALTER TABLE outputs ADD COLUMN is_closed INTEGER NOT NULL DEFAULT 0 CHECK (is_closed IN (0, 1));
-- When the file was made, where its file system tells: the number of a removed file is given to new ones.
ALTER TABLE outputs ADD COLUMN born TEXT;
