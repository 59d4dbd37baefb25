-- Unread events that follow each other in a room's log and are alike share a row: the first, and how many follow it.
ALTER TABLE unread ADD COLUMN more BIGINT NOT NULL DEFAULT 0;
