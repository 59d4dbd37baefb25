-- What was answered to the last transactions of other servers. A transaction's id decides its slot, of which each server has a
-- few, so that old answers go when new ones come.
CREATE TABLE server_txn (
    origin          TEXT   NOT NULL,
    slot            BIGINT NOT NULL,
    txn_id          TEXT   NOT NULL,
    answer          TEXT   NOT NULL,               -- JSON
    PRIMARY KEY (origin, slot)
) WITHOUT ROWID;
