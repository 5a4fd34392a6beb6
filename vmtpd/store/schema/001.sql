-- What the daemon itself must remember: the schema's number, the store's name, the greatest id that retention took away.
CREATE TABLE store (
    key TEXT PRIMARY KEY,
    value NOT NULL
) WITHOUT ROWID;

-- A message. `open` counts the recipients that are not done; with the last one body and file go, and `closed` tells when.
-- The body stands last, so that the other columns are read without it.
CREATE TABLE message (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    client TEXT NOT NULL,
    listener TEXT NOT NULL,
    sender TEXT NOT NULL,
    params TEXT NOT NULL,           -- JSON, '' for none
    arrived REAL NOT NULL,
    expires REAL NOT NULL,
    closed REAL,
    warned INTEGER NOT NULL,
    open INTEGER NOT NULL,
    size INTEGER NOT NULL,          -- head and body
    digest BLOB NOT NULL,           -- SHA-256 of the body
    file TEXT,                      -- where the body is too large for a row
    head BLOB NOT NULL,
    body BLOB
);
CREATE INDEX message_open ON message (id) WHERE open > 0;
CREATE INDEX message_closed ON message (closed) WHERE closed IS NOT NULL;
CREATE INDEX message_file ON message (file) WHERE file IS NOT NULL;

-- A recipient, numbered from 1 in its message. `due` outlives a lease, so that what is given back waits as before.
CREATE TABLE recipient (
    message INTEGER NOT NULL,
    n INTEGER NOT NULL,
    address TEXT NOT NULL,
    params TEXT NOT NULL,           -- JSON, '' for none
    state TEXT NOT NULL,            -- queued leased held done
    owner INTEGER,                  -- the run of a daemon that leased it
    due REAL NOT NULL,
    destination TEXT,               -- where it waits
    tries INTEGER NOT NULL,
    action TEXT,
    reply TEXT,
    PRIMARY KEY (message, n)
) WITHOUT ROWID;
CREATE INDEX recipient_due ON recipient (due) WHERE state = 'queued';
CREATE INDEX recipient_destination ON recipient (destination, due) WHERE state = 'queued';
CREATE INDEX recipient_owner ON recipient (owner) WHERE state = 'leased';

-- One row: recipients by state, open messages, their octets, messages that are done and remembered.
CREATE TABLE total (
    queued INTEGER NOT NULL,
    leased INTEGER NOT NULL,
    held INTEGER NOT NULL,
    messages INTEGER NOT NULL,
    octets INTEGER NOT NULL,
    done INTEGER NOT NULL
);
INSERT INTO total VALUES (0, 0, 0, 0, 0, 0);

CREATE TABLE metadata (
    message INTEGER NOT NULL,
    by TEXT NOT NULL,               -- client or server
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (message, by, key)
) WITHOUT ROWID;

-- What happened, in the order of the commits. n is 0 where the message as a whole is meant.
CREATE TABLE event (
    seq INTEGER PRIMARY KEY,
    message INTEGER NOT NULL,
    n INTEGER NOT NULL,
    at REAL NOT NULL,
    action TEXT NOT NULL,
    host TEXT NOT NULL,
    tls TEXT NOT NULL,
    reply TEXT NOT NULL,
    next REAL
);
CREATE INDEX event_message ON event (message);

CREATE TABLE destination (
    name TEXT PRIMARY KEY,
    state TEXT NOT NULL,            -- up down
    until REAL NOT NULL,
    failures INTEGER NOT NULL,
    reply TEXT NOT NULL,
    at REAL NOT NULL
) WITHOUT ROWID;
