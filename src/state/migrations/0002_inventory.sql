-- What each engine has. Times are RFC 3339, UTC, with nine digits, and the engine's. labels is a JSON object:
-- labels ->> '$."com.docker.compose.project"'.

-- A container that there is, running or not.
CREATE TABLE containers (
    engine_id TEXT NOT NULL,
    container_id TEXT NOT NULL,
    name TEXT NOT NULL,
    image TEXT NOT NULL,
    labels TEXT NOT NULL,
    -- created, running, paused, restarting, removing, exited or dead; empty while nobody told.
    state TEXT NOT NULL,
    created_at TEXT,
    -- Of the newest run; NULL where neither an event told nor the container's folder can be read.
    started_at TEXT,
    finished_at TEXT,
    exit_code INTEGER,
    -- json-file, local, ...; NULL where the container's folder cannot be read.
    log_driver TEXT,
    -- How watch would read it: file, stream, rotate or poll; NULL where there is nothing to read.
    log_route TEXT,
    first_seen_at TEXT NOT NULL,
    -- By an event or a listing.
    last_seen_at TEXT NOT NULL,
    state_seen_at TEXT,
    PRIMARY KEY (engine_id, container_id)
) WITHOUT ROWID;

CREATE TABLE volumes (
    engine_id TEXT NOT NULL,
    name TEXT NOT NULL,
    driver TEXT NOT NULL,
    -- local or global; empty while only an event told of the volume, as mountpoint and labels are.
    scope TEXT NOT NULL,
    mountpoint TEXT NOT NULL,
    labels TEXT NOT NULL,
    created_at TEXT,
    first_seen_at TEXT NOT NULL,
    last_seen_at TEXT NOT NULL,
    PRIMARY KEY (engine_id, name)
) WITHOUT ROWID;

-- Who uses what, where: volumes.name is mounts.volume.
CREATE TABLE mounts (
    engine_id TEXT NOT NULL,
    container_id TEXT NOT NULL,
    -- In the container.
    destination TEXT NOT NULL,
    -- volume, bind, tmpfs, ...
    type TEXT NOT NULL,
    -- NULL where it is no volume.
    volume TEXT,
    -- On the engine's machine.
    source TEXT,
    driver TEXT,
    mode TEXT,
    read_only INTEGER NOT NULL,
    propagation TEXT NOT NULL,
    PRIMARY KEY (engine_id, container_id, destination)
) WITHOUT ROWID;

CREATE INDEX mounts_by_volume ON mounts (engine_id, volume) WHERE volume IS NOT NULL;

-- What was removed lately, so that what is told late or seen by another process does not bring it back.
CREATE TABLE removals (
    engine_id TEXT NOT NULL,
    -- container or volume.
    resource TEXT NOT NULL,
    id TEXT NOT NULL,
    removed_at TEXT NOT NULL,
    PRIMARY KEY (engine_id, resource, id)
) WITHOUT ROWID;

CREATE INDEX removals_by_time ON removals (engine_id, removed_at);

-- Each time that everything was compared with the engine, the newest thousand of an engine; _unchanged counts what was
-- as it should be.
CREATE TABLE reconciliations (
    id INTEGER PRIMARY KEY,
    engine_id TEXT NOT NULL,
    -- By our clock.
    started_at TEXT NOT NULL,
    duration_seconds REAL NOT NULL,
    -- reconcile, or watch.
    source TEXT NOT NULL,
    containers_created INTEGER NOT NULL,
    containers_updated INTEGER NOT NULL,
    containers_removed INTEGER NOT NULL,
    containers_unchanged INTEGER NOT NULL,
    volumes_created INTEGER NOT NULL,
    volumes_updated INTEGER NOT NULL,
    volumes_removed INTEGER NOT NULL,
    volumes_unchanged INTEGER NOT NULL,
    mounts_created INTEGER NOT NULL,
    mounts_updated INTEGER NOT NULL,
    mounts_removed INTEGER NOT NULL,
    mounts_unchanged INTEGER NOT NULL,
    positions_removed INTEGER NOT NULL,
    positions_unchanged INTEGER NOT NULL
);

CREATE INDEX reconciliations_by_engine ON reconciliations (engine_id, id);
