-- Which file a position is in, whatever the number of its device has become: the ID of the file system, where that stays
-- the same from mount to mount (an unsigned 64-bit number kept as a signed one), and when the file was created, where its
-- file system records that. A position of an older schema has neither; its fingerprint may be that of the creation.
ALTER TABLE positions ADD COLUMN filesystem INTEGER;
ALTER TABLE positions ADD COLUMN born TEXT;
