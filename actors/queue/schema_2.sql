-- Version 2: what version 1 forgot.

-- Daemons that vanished are counted within one boot: the one in which they were counted.
ALTER TABLE jobs ADD COLUMN lost_boot TEXT;
-- 1 from the birth of a database until it has been filled from the folders: a death in between must not end that.
ALTER TABLE gate ADD COLUMN rebuilding INTEGER NOT NULL DEFAULT 0;
