-- The queue's database. PRAGMA user_version counts the migrations: this file makes version 1, schema_2.sql the next.
-- Times are microseconds since 1970 UTC. Partial indexes keep each question as cheap at a million rows as at ten.

CREATE TABLE jobs (
    id                  TEXT PRIMARY KEY,
    file                TEXT NOT NULL,
    state               TEXT NOT NULL,
    priority            TEXT NOT NULL,
    place               TEXT NOT NULL,
    name                TEXT NOT NULL,
    seq                 INTEGER NOT NULL,
    rank                INTEGER,
    origin              TEXT,
    sha256              TEXT NOT NULL,
    bytes               INTEGER NOT NULL,
    mtime_ns            INTEGER NOT NULL,
    samples             INTEGER NOT NULL,
    refused             TEXT NOT NULL,
    submitted_at        INTEGER NOT NULL,
    started_at          INTEGER,
    finished_at         INTEGER,
    interruptions       INTEGER NOT NULL,
    last_error          TEXT,
    stats               TEXT NOT NULL,
    attempts            INTEGER NOT NULL,
    failures            INTEGER NOT NULL,
    progress            INTEGER NOT NULL,
    progress_at_failure INTEGER NOT NULL,
    vanished            INTEGER NOT NULL,
    lost                INTEGER NOT NULL,
    live_boot           TEXT
);

-- Two payloads never share a name in a folder, and a name in a folder finds its row.
CREATE UNIQUE INDEX jobs_by_name ON jobs (place, name);
-- The next of a line.
CREATE INDEX jobs_in_line ON jobs (priority, seq) WHERE state = 'queued';
-- The begun come before the lines. Queries repeat the condition of a partial index literally, else it is not used.
CREATE INDEX jobs_begun ON jobs (state, rank) WHERE rank IS NOT NULL;
-- A handful of rows each.
CREATE INDEX jobs_checking ON jobs (seq) WHERE state = 'checking';
CREATE INDEX jobs_cancelled ON jobs (seq) WHERE state = 'cancelled';
CREATE INDEX jobs_with_progress ON jobs (progress) WHERE progress > 0 AND state <> 'done';
-- Retention, and the tail of the list.
CREATE INDEX jobs_done ON jobs (finished_at) WHERE state = 'done';
CREATE INDEX jobs_failed ON jobs (finished_at) WHERE state = 'failed';
-- People and scripts ask by file name.
CREATE INDEX jobs_by_file ON jobs (file);

CREATE TABLE history (
    n             INTEGER PRIMARY KEY AUTOINCREMENT,
    id            TEXT NOT NULL,
    file          TEXT NOT NULL,
    sha256        TEXT NOT NULL,
    outcome       TEXT NOT NULL,
    samples       INTEGER NOT NULL,
    held_out      INTEGER NOT NULL,
    refused       INTEGER NOT NULL,
    tokens        INTEGER NOT NULL,
    steps         INTEGER NOT NULL,
    first_loss    REAL,
    last_loss     REAL,
    version       INTEGER,
    started_at    INTEGER,
    finished_at   INTEGER NOT NULL,
    interruptions INTEGER NOT NULL
);

-- A job is trained once.
CREATE UNIQUE INDEX history_trained_once ON history (id) WHERE outcome = 'trained';
CREATE INDEX history_by_id ON history (id);
CREATE INDEX history_other ON history (n) WHERE outcome <> 'trained';
CREATE INDEX history_unpublished ON history (n) WHERE outcome = 'trained' AND version IS NULL;

-- The durable half of the gate: one row.
CREATE TABLE gate (
    only           INTEGER PRIMARY KEY CHECK (only = 1),
    paused         INTEGER NOT NULL,
    release_device INTEGER NOT NULL,
    stop_after     INTEGER NOT NULL,
    lease_holder   TEXT,
    lease_token    TEXT
);
INSERT INTO gate VALUES (1, 0, 0, 0, NULL, NULL);
