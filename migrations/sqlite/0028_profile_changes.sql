-- `changed` is the position of the last write of a field: queue entries point at it. The value of one that was taken away is ''.
ALTER TABLE profile ADD COLUMN changed BIGINT NOT NULL DEFAULT 0;
CREATE INDEX profile_changed ON profile (changed);
