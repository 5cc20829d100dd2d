BEGIN TRANSACTION;
CREATE TABLE gate (
    only           INTEGER PRIMARY KEY CHECK (only = 1),
    paused         INTEGER NOT NULL,
    release_device INTEGER NOT NULL,
    stop_after     INTEGER NOT NULL,
    lease_holder   TEXT,
    lease_token    TEXT
);
INSERT INTO "gate" VALUES(1,1,0,0,NULL,NULL);
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
INSERT INTO "history" VALUES(1,'01kdvdnaz8kb1k340y62bks54p','trained.jsonl','11dec0d837e45f0c303871965ad81832b99d6bf36be968e167c5e80b0b8c7515','trained',2,0,0,20,2,2.0,1.0,NULL,1767225602000000,1767225603000000,0);
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
INSERT INTO "jobs" VALUES('01kdvdnaz8kb1k340y62bks54p','trained.jsonl','done','normal','done','trained.jsonl',1,1,'queue/processing/trained.jsonl','11dec0d837e45f0c303871965ad81832b99d6bf36be968e167c5e80b0b8c7515',43,1795453300697219114,2,'[]',1767225601000000,1767225602000000,1767225603000000,0,NULL,'{"samples":2,"held_out":0,"refused":0,"tokens":20,"steps":2,"first_loss":2.0,"last_loss":1.0}',0,0,0,0,0,0,NULL);
INSERT INTO "jobs" VALUES('01kdvdndx0bd5kp8388ym9s0vz','waiting.jsonl','queued','normal','normal','waiting.jsonl',2,NULL,'inbox/waiting.jsonl','e52d626f8af2a99de0c8c51a213158272796beedb1192c3b686552b51e1a06c6',43,1795453300727491275,2,'[]',1767225604000000,NULL,NULL,0,NULL,'{"samples":0,"held_out":0,"refused":0,"tokens":0,"steps":0,"first_loss":null,"last_loss":null}',0,0,0,0,0,0,NULL);
CREATE UNIQUE INDEX jobs_by_name ON jobs (place, name);
CREATE INDEX jobs_in_line ON jobs (priority, seq) WHERE state = 'queued';
CREATE INDEX jobs_begun ON jobs (state, rank) WHERE rank IS NOT NULL;
CREATE INDEX jobs_checking ON jobs (seq) WHERE state = 'checking';
CREATE INDEX jobs_cancelled ON jobs (seq) WHERE state = 'cancelled';
CREATE INDEX jobs_with_progress ON jobs (progress) WHERE progress > 0 AND state <> 'done';
CREATE INDEX jobs_done ON jobs (finished_at) WHERE state = 'done';
CREATE INDEX jobs_failed ON jobs (finished_at) WHERE state = 'failed';
CREATE INDEX jobs_by_file ON jobs (file);
CREATE UNIQUE INDEX history_trained_once ON history (id) WHERE outcome = 'trained';
CREATE INDEX history_by_id ON history (id);
CREATE INDEX history_other ON history (n) WHERE outcome <> 'trained';
CREATE INDEX history_unpublished ON history (n) WHERE outcome = 'trained' AND version IS NULL;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('history',1);
COMMIT;
