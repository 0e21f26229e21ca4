-- The inventory of each engine. Times are RFC 3339 in UTC with nine digits, by the daemon's clock. labels is a JSON object:
-- labels ->> '$."com.docker.compose.project"'.

-- The existing containers, running or not.
CREATE TABLE containers (
    engine_id TEXT NOT NULL,
    container_id TEXT NOT NULL,
    name TEXT NOT NULL,
    image TEXT NOT NULL,
    labels TEXT NOT NULL,
    -- created, running, paused, restarting, removing, exited or dead; empty while unknown.
    state TEXT NOT NULL,
    created_at TEXT,
    -- Of the latest run; NULL if no event reported them and the container's folder cannot be read.
    started_at TEXT,
    finished_at TEXT,
    exit_code INTEGER,
    -- json-file, local, ...; NULL if the container's folder cannot be read.
    log_driver TEXT,
    -- How watch would read the log: file, stream, rotate or poll; NULL if there is nothing to read.
    log_route TEXT,
    first_seen_at TEXT NOT NULL,
    -- In an event or a listing.
    last_seen_at TEXT NOT NULL,
    state_seen_at TEXT,
    PRIMARY KEY (engine_id, container_id)
) WITHOUT ROWID;

CREATE TABLE volumes (
    engine_id TEXT NOT NULL,
    name TEXT NOT NULL,
    driver TEXT NOT NULL,
    -- local or global. Empty, like mountpoint and labels, while only events have mentioned the volume.
    scope TEXT NOT NULL,
    mountpoint TEXT NOT NULL,
    labels TEXT NOT NULL,
    created_at TEXT,
    first_seen_at TEXT NOT NULL,
    last_seen_at TEXT NOT NULL,
    PRIMARY KEY (engine_id, name)
) WITHOUT ROWID;

-- Which container mounts what where. mounts.volume refers to volumes.name.
CREATE TABLE mounts (
    engine_id TEXT NOT NULL,
    container_id TEXT NOT NULL,
    -- The path in the container.
    destination TEXT NOT NULL,
    -- volume, bind, tmpfs, ...
    type TEXT NOT NULL,
    -- NULL if the mount is not a volume.
    volume TEXT,
    -- The path on the engine's machine.
    source TEXT,
    driver TEXT,
    mode TEXT,
    read_only INTEGER NOT NULL,
    propagation TEXT NOT NULL,
    PRIMARY KEY (engine_id, container_id, destination)
) WITHOUT ROWID;

CREATE INDEX mounts_by_volume ON mounts (engine_id, volume) WHERE volume IS NOT NULL;

-- Recent removals, so that a late event or an older listing of another process does not bring the row back.
CREATE TABLE removals (
    engine_id TEXT NOT NULL,
    -- container or volume.
    resource TEXT NOT NULL,
    id TEXT NOT NULL,
    removed_at TEXT NOT NULL,
    PRIMARY KEY (engine_id, resource, id)
) WITHOUT ROWID;

CREATE INDEX removals_by_time ON removals (engine_id, removed_at);

-- The history of full reconciliations: the latest thousand of each engine. The columns that end in _unchanged count the
-- rows that matched.
CREATE TABLE reconciliations (
    id INTEGER PRIMARY KEY,
    engine_id TEXT NOT NULL,
    -- By the clock of the machine that runs docker-logwatch.
    started_at TEXT NOT NULL,
    duration_seconds REAL NOT NULL,
    -- reconcile or watch.
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
