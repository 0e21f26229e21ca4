-- When the file was made, where its file system tells: the number of a removed file is given to new ones.
ALTER TABLE outputs ADD COLUMN born TEXT;
