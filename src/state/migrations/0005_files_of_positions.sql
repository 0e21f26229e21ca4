-- Identify the file of a position even if its device number changed: the ID of the file system, if it stays the same from
-- mount to mount (an unsigned 64-bit number stored as a signed one), and when the file was created, if its file system
-- records it. A position of an older schema has neither; its fingerprint may be derived from the creation time.
ALTER TABLE positions ADD COLUMN filesystem INTEGER;
ALTER TABLE positions ADD COLUMN born TEXT;
