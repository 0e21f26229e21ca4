-- The last entry of the output's write-ahead log that the committed positions include; 0 if there was no such log.
ALTER TABLE outputs ADD COLUMN sequence INTEGER NOT NULL DEFAULT 0;
