-- When the file was created, if its file system records it: the inode of a removed file is given to new ones.
ALTER TABLE outputs ADD COLUMN born TEXT;
