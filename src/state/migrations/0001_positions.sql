-- "logw": distinguishes a state file from the database of another program.
PRAGMA application_id = 0x6c6f6777;

-- The resume names of each engine, from their first commit on.
CREATE TABLE resumes (
    engine_id TEXT NOT NULL,
    name TEXT NOT NULL,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    PRIMARY KEY (engine_id, name)
) WITHOUT ROWID;

-- How far each container's log was delivered. Times are RFC 3339 in UTC with nine digits. device, inode and fingerprint
-- are unsigned 64-bit numbers stored as signed ones with the same bits.
CREATE TABLE positions (
    engine_id TEXT NOT NULL,
    name TEXT NOT NULL,
    container_id TEXT NOT NULL,
    container_name TEXT NOT NULL,
    route TEXT NOT NULL,
    -- 1 if the container had stopped and its log was read to the end.
    ended INTEGER NOT NULL,
    -- The position by time: where to read from, and the last line of each stream.
    since TEXT,
    stdout_time TEXT,
    stdout_ordinal INTEGER,
    stdout_high TEXT,
    stderr_time TEXT,
    stderr_ordinal INTEGER,
    stderr_high TEXT,
    -- The position in the log file; all NULL if the log was not read from a file.
    device INTEGER,
    inode INTEGER,
    fingerprint INTEGER,
    offset INTEGER,
    -- The last line of each stream before the offset, and how many lines after it were delivered.
    stdout_before_time TEXT,
    stdout_before_ordinal INTEGER,
    stdout_passed INTEGER,
    stderr_before_time TEXT,
    stderr_before_ordinal INTEGER,
    stderr_passed INTEGER,
    updated_at TEXT NOT NULL,
    PRIMARY KEY (engine_id, name, container_id)
) WITHOUT ROWID;

-- The length of each output file (-o FILE) when the positions were committed.
CREATE TABLE outputs (
    engine_id TEXT NOT NULL,
    name TEXT NOT NULL,
    path TEXT NOT NULL,
    device INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    length INTEGER NOT NULL,
    updated_at TEXT NOT NULL,
    PRIMARY KEY (engine_id, name, path)
) WITHOUT ROWID;
