-- Accounts that nobody has registered ("Guest Access").
ALTER TABLE account ADD COLUMN guest BOOLEAN NOT NULL DEFAULT FALSE;

-- Rooms whose guests have to leave, because the event `seq` ended their access or a later one did.
CREATE TABLE guests_to_leave (
    room            BIGINT NOT NULL PRIMARY KEY,
    seq             BIGINT NOT NULL
);
